"""Recorded steps: the numbers of the programs, fresh noise, and what cannot be recorded."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from seeded import seeded
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.models import VAE, GaussianMixture
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE, VGI
from pyro_lvm.training import CompiledLoss
from pyro_lvm.training.replaying import options_for

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.not_simulated(reason="its operations cannot be recorded"),
]


def vae() -> tuple[VAE, AmortizedNormal]:
    return VAE(6, 2, (8,)), AmortizedNormal(in_features=6, latent_features=2, hidden=(8,))


def rows(count: int = 10) -> Tensor:
    return torch.rand(count, 6).round()


def gradients(loss: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    value = loss(x)
    return value.detach(), list(torch.autograd.grad(value, list(loss.parameters())))


def check_same(recorded: CompiledLoss, eager: nn.Module, x: Tensor, seed: int = 0) -> None:
    """One loss and one gradient, from the same random numbers."""
    value, slopes = gradients(recorded, x, seed)
    expected, expected_slopes = gradients(eager, x, seed)
    torch.testing.assert_close(value, expected)
    for slope, other in zip(slopes, expected_slopes, strict=True):
        torch.testing.assert_close(slope, other)


def test_free_bits_are_recorded() -> None:
    """After the parameters have moved, too."""
    model, guide = vae()
    recorded = CompiledLoss(ELBO(4, free_bits=0.3), model, guide, backend="graph")
    eager = ELBO(4, free_bits=0.3)(model, guide)
    check_same(recorded, eager, rows())
    with torch.no_grad():
        for parameter in recorded.parameters():
            parameter.add_(0.1)
    check_same(recorded, eager, rows(), seed=1)
    assert recorded.num_graphs == 1
    assert not recorded.is_eager


def test_draws_are_fresh_in_each_replay_and_of_the_same_distribution() -> None:
    model, guide = vae()
    x, objective = rows(), ELBO()
    recorded, eager = CompiledLoss(objective, model, guide, backend="graph"), ELBO()(model, guide)
    many = {
        name: torch.stack([loss(x).detach() for _ in range(400)])
        for name, loss in (("recorded", recorded), ("eager", eager))
    }
    assert len(many["recorded"].unique()) == 400
    means = {name: losses.mean() for name, losses in many.items()}
    error = sum(losses.var() for losses in many.values()).div(400).sqrt()
    assert (means["recorded"] - means["eager"]).abs() < 4 * error
    assert error < 0.03 * means["eager"].abs()


def test_random_numbers_and_the_step_are_those_of_training_without_it() -> None:
    model, guide = vae()
    objective = ELBO()
    recorded = CompiledLoss(objective, model, guide, backend="graph")
    torch.manual_seed(3)
    recorded(rows())
    after = torch.rand(1)
    torch.manual_seed(3)
    ELBO().differentiable_loss(model, guide, rows())
    assert torch.equal(after, torch.rand(1)), "the recording draws in a state of its own"
    assert objective.step == 1


def test_a_warm_up_goes_on_without_a_new_graph() -> None:
    model, guide = vae()
    x, warmup = rows(), LinearWarmup(4, 0.1)
    recorded = CompiledLoss(IWAE(3, "dreg", beta=warmup), model, guide, backend="graph")
    eager = IWAE(3, "dreg", beta=warmup)(model, guide)
    for seed in range(6):
        check_same(recorded, eager, x, seed)
    assert recorded.num_graphs == 1


def test_other_batches_and_modes_get_graphs_of_their_own() -> None:
    model, guide = vae()
    recorded = CompiledLoss(ELBO(), model, guide, backend="graph", cache_size=2)
    for count in (10, 4, 10):
        recorded(rows(count))
    assert recorded.num_graphs == 2
    recorded.eval()
    recorded(rows())
    assert recorded.num_graphs == 2, "bounded"
    frozen = next(model.parameters()).requires_grad_(False)
    recorded(rows()).backward()
    assert frozen.grad is None


def test_a_network_put_in_another_ones_place_is_trained() -> None:
    model, guide = vae()
    recorded, x = CompiledLoss(ELBO(), model, guide, backend="graph"), rows()
    recorded(x)
    model.decoder = deepcopy(model.decoder)
    recorded(x).backward()
    assert recorded.num_graphs == 2
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_layer_without_parameters_put_in_another_ones_place() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    guide = AmortizedNormal(network, encoder_features=8, latent_features=2)
    model, x = VAE(6, 2, (8,)), rows()
    recorded = CompiledLoss(ELBO(), model, guide, backend="graph")
    recorded(x)
    network[1] = nn.ReLU()
    check_same(recorded, ELBO()(model, guide), x)


def test_dropout_and_batch_norm_are_those_of_training() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    guide = AmortizedNormal(network, encoder_features=8, latent_features=2)
    recorded = CompiledLoss(ELBO(), VAE(6, 2, (8,)), guide, backend="graph")
    x = rows(20)
    losses = torch.stack([recorded(x).detach() for _ in range(5)])
    assert len(losses.unique()) == 5
    assert int(network[1].num_batches_tracked) == 5
    assert network[1].running_mean.abs().sum() > 0


def test_functions_with_parameters_of_pyros_store() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(2.0), dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + shift, 0.8))

    recorded, x = CompiledLoss(ELBO(), model, guide, backend="graph"), torch.randn(5)
    for seed in range(2):
        found = []
        for loss in (recorded, ELBO()(model, guide)):
            torch.manual_seed(seed)
            value = loss(x)
            unconstrained = [pyro.param(n).unconstrained() for n in ("scale", "shift")]
            found.append([value.detach(), *torch.autograd.grad(value, unconstrained)])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            pyro.param("scale").unconstrained().add_(0.5)


def test_modules_whose_names_the_store_has_for_others() -> None:
    """They train their own parameters, as they would without a recording."""
    x = rows()
    ELBO()(*vae())(x)
    recorded = CompiledLoss(ELBO(), *vae(), backend="graph")
    recorded(x).backward()
    assert all(parameter.grad is not None for parameter in recorded.parameters())


def test_sums_over_discrete_sites_are_recorded() -> None:
    model = GaussianMixture(in_features=6, enumerate_latents=True)
    recorded = CompiledLoss(ELBO(), model, lambda x: None, backend="graph")
    check_same(recorded, ELBO()(model, lambda x: None), rows())
    assert not recorded.is_eager


def test_without_gradient_nothing_is_recorded() -> None:
    model, guide = vae()
    recorded = CompiledLoss(ELBO(), model, guide, backend="graph")
    with torch.no_grad():
        recorded(rows())
    assert recorded.num_graphs == 0


# What cannot be recorded.


class Branching(PyroModule):
    """Decides by the value of a draw."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            scale = 1.0 if z.sum() > 0 else 2.0  # decides
            pyro.sample("x", dist.Normal(z.repeat(1, 1, 3), scale).to_event(1), obs=x)


def test_a_branch_on_a_value_goes_on_uncompiled_and_says_where() -> None:
    _, guide = vae()
    recorded = CompiledLoss(ELBO(), Branching(), guide, backend="graph")
    with pytest.warns(UserWarning, match=r"going on uncompiled") as told:
        recorded(rows()).backward()
    message = str(told[0].message)
    assert "test_compiled.py" in message
    assert "scale = 1.0 if z.sum() > 0 else 2.0" in message
    assert told[0].filename == __file__
    assert recorded.is_eager
    recorded(rows()).backward()  # without another warning
    assert all(p.grad is not None for p in guide.parameters())


class Keeping(Objective):
    """An objective of another's, with a state that recorded steps would not change."""

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"count": 0}


@pytest.mark.parametrize(
    ("objective", "x", "reason"),
    [
        (ELBO(), np.ones((4, 6)), "an argument of type ndarray"),
        (ELBO(), rows().requires_grad_(), "an argument that needs a gradient"),
        (Keeping(), rows(), "Keeping, which keeps a state of its own"),
        (VGI(Chains(rows()), inner=Keeping()), rows(), "VGI, which keeps a state of its own"),
    ],
    ids=["argument", "gradient", "state", "state within"],
)
def test_other_reasons_are_named(objective: Objective, x: Any, reason: str) -> None:
    model, posterior = vae()
    guide = GibbsGuide(GibbsConditionals(6), posterior)
    recorded = CompiledLoss(objective, model, guide, backend="graph")
    with pytest.warns(UserWarning, match=reason):
        recorded(x)


def test_errors_of_programs_and_data_stay_what_they_are() -> None:
    model, guide = vae()
    recorded = CompiledLoss(ELBO(), model, guide, backend="graph")
    with pytest.raises(DataError, match="expected finite data, got NaN"):
        recorded(torch.full((4, 6), torch.nan))
    with pytest.raises(ProgramError, match=r"backend: expected one of \['inductor', 'graph'\]"):
        CompiledLoss(ELBO(), model, guide, backend="cuda")


# In fit.


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ProgramError, match=r"compile: expected one of \['inductor', 'graph'\]"):
        fit(*vae(), rows(), ELBO(), max_steps=1, compile="jit")


def test_fit_is_the_same_with_recorded_steps() -> None:
    results = []
    for compile in (False, "graph"):
        torch.manual_seed(0)
        model, guide = vae()
        x = seeded(torch.rand, 50, 6, seed=1).round()
        options = {"max_steps": 12, "batch_size": 20, "log_every": 1, "accelerator": "cpu"}
        objective = IWAE(3, "dreg", beta=LinearWarmup(5))
        result = fit(model, guide, x, objective, compile=compile, **options)
        results.append(result.history["loss"])
        assert (result.compile_seconds > 0) == bool(compile)
        assert 0 < result.seconds_per_step < 1
    np.testing.assert_allclose(*results, rtol=1e-8)


def test_a_run_that_goes_on_is_one_that_was_never_ended(tmp_path: Path) -> None:
    """Its discriminator and all, recorded anew."""

    def history(folder: str, max_steps: int) -> list[float | int | None]:
        torch.manual_seed(0)
        objective = AVB(Discriminator(2, 6, (5,)), 3)
        result = fit(
            *vae(),
            seeded(torch.rand, 50, 6, seed=1).round(),
            objective,
            max_steps=max_steps,
            batch_size=20,
            log_every=1,
            accelerator="cpu",
            compile="graph",
            run_dir=tmp_path / folder,
            resume=True,
        )
        return result.history["loss"]

    whole = history("whole", 8)
    history("parts", 5)
    assert history("parts", 8) == whole


# On CUDA.


def test_options_are_those_of_the_device() -> None:
    cpu, cuda, other = (SimpleNamespace(device=torch.device(d)) for d in ("cpu", "cuda", "mps"))
    some: Any = options_for
    assert some([cpu, cpu]) == {"cpp_wrapper": True}
    assert some([cpu, cuda]) == {"triton.cudagraphs": True}
    assert some([cpu, other]) == {}


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_draw_anew_and_leave_gradients_alone() -> None:
    model, guide = (program.cuda() for program in vae())
    x = rows().cuda()
    recorded, eager = CompiledLoss(IWAE(5), model, guide), IWAE(5)(model, guide)
    first = gradients(recorded, x)[1]
    kept = [gradient.clone() for gradient in first]
    many = [torch.stack([loss(x).detach() for _ in range(400)]) for loss in (recorded, eager)]
    assert not recorded.is_eager
    assert len(many[0].unique()) == 400
    error = (many[0].var() + many[1].var()).div(400).sqrt()
    assert (many[0].mean() - many[1].mean()).abs() < 4 * error
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_inductor_gives_the_same_numbers() -> None:
    """But for its own random numbers: a deterministic loss, and moments of a random one."""
    model, guide = vae()
    x = rows()
    mixture = GaussianMixture(in_features=6, enumerate_latents=True)
    exact = CompiledLoss(ELBO(), mixture, lambda x: None)
    for layout in (x, x.t().contiguous().t(), x.repeat(1, 2)[:, :6], x[:1].expand(len(x), 6)):
        check_same(exact, ELBO()(mixture, lambda x: None), layout)
    assert exact.num_graphs == 1
    recorded, eager = CompiledLoss(IWAE(5), model, guide), IWAE(5)(model, guide)
    many = [torch.stack([loss(x).detach() for _ in range(400)]) for loss in (recorded, eager)]
    assert len(many[0].unique()) == 400
    error = (many[0].var() + many[1].var()).div(400).sqrt()
    assert (many[0].mean() - many[1].mean()).abs() < 4 * error
    assert not recorded.is_eager
