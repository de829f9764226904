"""The semi-amortised guide against closed forms, finite differences and its own promises."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SemiAmortized
from pyro_lvm.models import VAE, FactorAnalysis
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.testing import check_guide


def factor_analysis(latent_features: int, **options: Any) -> FactorAnalysis:
    torch.manual_seed(0)
    model = FactorAnalysis(6, latent_features, **options)
    with torch.no_grad():
        model.loading.normal_(0.0, 0.7)
        model.mean.normal_()
    return model


def guide_of(model: Any, latent_features: Any = 3, **options: Any) -> SemiAmortized:
    torch.manual_seed(1)
    return SemiAmortized(
        model, in_features=6, latent_features=latent_features, hidden=(9,), **options
    )


# The posterior.


def test_gap_falls_to_that_of_the_best_diagonal_normal(float64: torch.dtype) -> None:
    """Its precisions are the diagonal of the exact one; the encoder is untrained."""
    model = factor_analysis(3)
    x = model(size=20).detach()
    oracle = LinearGaussian(model.loading.detach(), model.noise_scale.detach())
    precision = model.posterior(x).precision_matrix[0].detach()
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    guide = guide_of(model, num_steps=60, num_inner_particles=500)
    noise, gaps = guide.noise, []
    for num_steps in (0, 1, 2, 4, 8, 16, 30, 60):
        guide.noise = noise[:num_steps]
        q = guide.posterior(x)["z"]
        diagonal = dist.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
        elbo = oracle.elbo(x - model.mean, diagonal)
        gaps.append((model.log_evidence(x) - elbo).mean().item())
    print(f"gaps {[round(gap, 4) for gap in gaps]}, of the best {best:.4f} nats")
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1.0
    assert 0.0 < gaps[-1] - best < 0.02 * best


@pytest.mark.parametrize("objective", [ELBO(), IWAE(5), IWAE(5, "dreg")], ids=str)
def test_every_bound_is_the_evidence_where_the_family_is_right(
    objective: Any, float64: Any
) -> None:
    """One latent: the moments of the noise are exact, and so are all steps."""
    model = factor_analysis(1)
    x = model(size=20).detach()
    guide = guide_of(model, 1, num_steps=200, through_refinement=False)
    bound = objective.bound(model, guide, x)
    torch.testing.assert_close(bound, model.log_evidence(x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradients_vanish_at_the_exact_posterior(gradient: str, float64: Any) -> None:
    model = factor_analysis(1)
    guide = guide_of(model, 1, num_steps=200, through_refinement=False)
    loss = ELBO(1, gradient).differentiable_loss(model, guide, model(size=20).detach())
    for slope in torch.autograd.grad(loss, list(guide.parameters())):
        assert slope.abs().max() < 1e-7


def test_plate_scale_does_not_change_the_steps(float64: torch.dtype) -> None:
    x = factor_analysis(3)(size=4).detach()
    posteriors = []
    for num_data in (None, 400):
        model = factor_analysis(3, num_data=num_data)
        posteriors.append(guide_of(model, num_data=num_data).posterior(x)["z"])
    torch.testing.assert_close(posteriors[0].mean, posteriors[1].mean)


@pytest.mark.parametrize("through_refinement", [True, False])
def test_evaluation_without_gradients_is_the_same(through_refinement: bool) -> None:
    model = factor_analysis(3)
    guide, x = guide_of(model, through_refinement=through_refinement), torch.randn(4, 6)
    with torch.no_grad():
        quiet = guide.posterior(x)["z"]
    assert not quiet.mean.requires_grad
    torch.testing.assert_close(quiet.mean, guide.posterior(x)["z"].mean)


def test_masked_data_leave_the_steps_finite(float64: torch.dtype) -> None:
    """Where nothing is observed the steps go to the prior; where all is, mask or none agree."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0).to_event(1))
            pixels = dist.Normal(z, 1.0).mask(x.isfinite())
            pyro.sample("x", pixels.to_event(1), obs=x)

    x = torch.randn(3, 6)
    x[0] = torch.nan
    zeros = nn.Linear(6, 4)
    nn.init.zeros_(zeros.weight)
    encoder = nn.Sequential(Filled(), zeros)
    guide = SemiAmortized(model, encoder, encoder_features=4, latent_features=6, num_steps=300)
    q = guide.posterior(x)["z"]
    exact = torch.where(x.isfinite(), x / 2, torch.zeros(()))
    torch.testing.assert_close(q.mean, exact)  # 300 steps on a quadratic: to rounding


class Filled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.nan_to_num()


def test_deterministic_sites_add_nothing() -> None:
    inner = factor_analysis(3)

    def model(x: Tensor) -> None:
        pyro.deterministic("size", torch.tensor(len(x)))
        inner(x)

    x = torch.randn(4, 6)
    with_site, without = (guide_of(m).posterior(x)["z"] for m in (model, inner))
    torch.testing.assert_close(with_site.mean, without.mean)


def test_several_sites() -> None:
    model = VAE(6, (3, 2), hidden=(9,), likelihood="gaussian")
    guide, x = guide_of(model, {"z1": 3, "z2": 2}), torch.randn(4, 6)
    assert {n: q.event_shape for n, q in guide.posterior(x).items()} == {"z1": (3,), "z2": (2,)}
    check_guide(guide, x, model, num_draws=500)


# Gradients.


def loss_at(model: Any, guide: Any, x: Tensor, objective: Any) -> Tensor:
    torch.manual_seed(3)
    loss: Tensor = objective.differentiable_loss(model, guide, x)
    return loss


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_through_the_steps_is_that_of_differences(frozen: bool, float64: Any) -> None:
    """At common random numbers, for every parameter of guide and model."""
    model = VAE(6, 3, hidden=(9,), likelihood="gaussian")
    guide, x = guide_of(model, num_steps=3), torch.randn(5, 6)
    guide.encoding.requires_grad_(not frozen).train(not frozen)
    for parameter in [p for p in (*model.parameters(), *guide.parameters()) if p.requires_grad]:
        (slope,) = torch.autograd.grad(loss_at(model, guide, x, IWAE(4)), parameter)
        direction = torch.randn_like(parameter)
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
            ends.append(loss_at(model, guide, x, IWAE(4)).detach())
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-5)
        expected = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((slope * direction).sum(), expected, rtol=1e-5, atol=1e-6)


def test_gradient_past_the_steps_is_that_of_a_constant_shift(float64: torch.dtype) -> None:
    """For the model: of a fixed guide. For the encoder: as if its output were that of the steps."""
    model = factor_analysis(3)
    guide, x = guide_of(model, through_refinement=False), torch.randn(5, 6)
    raw = guide.encoding(x)
    q = guide.posterior(x)["z"].base_dist
    scale = torch.log(torch.expm1(q.scale - 1e-6))
    shift = (torch.cat([q.loc, scale], -1) - raw).detach()

    def shifted(x: Tensor) -> None:
        loc, scale = (guide.encoding(x) + shift).chunk(2, -1)
        with pyro.plate("data", len(x)):
            normal = dist.Normal(loc, nn.functional.softplus(scale) + 1e-6)
            pyro.sample("z", normal.to_event(1))

    leaves = [*model.parameters(), *guide.parameters()]
    found = torch.autograd.grad(loss_at(model, guide, x, IWAE(4)), leaves)
    expected = torch.autograd.grad(loss_at(model, shifted, x, IWAE(4)), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_dreg_has_the_mean_of_reparam(float64: torch.dtype) -> None:
    """For the encoder and, through the steps, for the model; 500 copies of a datum a replicate."""
    model = factor_analysis(2)
    guide, x = guide_of(model, 2, num_steps=2), torch.randn(1, 6).expand(500, 6)
    leaves = [model.loading, guide.encoding.head.bias]

    def gradients(gradient: str) -> Tensor:
        losses = [IWAE(5, gradient).differentiable_loss(model, guide, x) for _ in range(60)]
        rows = [torch.autograd.grad(loss / len(x), leaves) for loss in losses]
        return torch.stack([torch.cat([slope.flatten() for slope in row]) for row in rows])

    plain, path = gradients("reparam"), gradients("dreg")
    error = ((plain.var(0) + path.var(0)) / len(plain)).sqrt()
    assert error.max() < 0.02 * plain.mean(0).norm()
    assert ((plain.mean(0) - path.mean(0)).abs() / error).max() < 5.5


@pytest.mark.parametrize(("through", "reaches"), [(True, True), (False, False)])
def test_draws_reach_the_model_only_through_the_steps(through: bool, reaches: bool) -> None:
    model = factor_analysis(3)
    guide = guide_of(model, through_refinement=through)
    guide(torch.randn(4, 6))["z"].sum().backward()
    assert (model.loading.grad is not None) == reaches
    assert all(p.grad is not None for p in guide.parameters())


# The model beside the guide.


@pytest.mark.parametrize("num_particles", [1, 7])
def test_steps_are_taken_once_a_datum(num_particles: int) -> None:
    rows: list[torch.Size] = []

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            rows.append(z.shape)
            pyro.sample("x", dist.Normal(torch.cat([z, z], -1), 1.0).to_event(1), obs=x)

    objective = IWAE(num_particles, max_plate_nesting=1)
    objective.loss(model, guide_of(model, num_steps=4), torch.randn(5, 6))
    assert rows == [(2, 5, 3)] * 4 + [(num_particles, 5, 3)]


def test_outer_handlers_see_the_guide_alone() -> None:
    model = factor_analysis(3)
    trace = pyro.poutine.trace(guide_of(model)).get_trace(torch.randn(4, 6))
    assert [n for n, site in trace.nodes.items() if site["type"] == "sample"] == ["data", "z"]
    assert not [n for n in trace.param_nodes if n.startswith("FactorAnalysis")]


def test_model_is_not_part_of_the_guide() -> None:
    model = factor_analysis(3)
    guide = guide_of(model)
    own = {id(p) for p in guide.parameters()}
    assert not own & {id(p) for p in model.parameters()}
    assert {name.split(".")[0] for name in guide.state_dict()} == {"encoding", "noise"}
    assert model not in list(guide.modules())
    guide.double()
    assert model.loading.dtype == torch.float64


def test_copies() -> None:
    model = factor_analysis(3)
    guide, x = guide_of(model), torch.randn(4, 6)
    before = guide.posterior(x)["z"].mean
    alone = deepcopy(guide)
    twin, tied = deepcopy((model, guide))
    with torch.no_grad():
        for moved in (model, twin):
            moved.mean.add_(1.0)
    after = guide.posterior(x)["z"].mean
    assert not torch.allclose(before, after)
    torch.testing.assert_close(alone.posterior(x)["z"].mean, before)
    torch.testing.assert_close(tied.posterior(x)["z"].mean, after)


def test_state_dict_brings_the_noise() -> None:
    model, x = factor_analysis(3), torch.randn(4, 6)
    guide, other = (
        guide_of(model),
        SemiAmortized(model, in_features=6, latent_features=3, hidden=(9,)),
    )
    other.load_state_dict(guide.state_dict())
    torch.testing.assert_close(other.posterior(x)["z"].mean, guide.posterior(x)["z"].mean)


def test_svi_trains_model_and_guide() -> None:
    model = factor_analysis(3)
    guide, x = guide_of(model), model(size=30).detach()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), ELBO(1, "stl"))
    losses = [svi.step(x) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    count = len(list(model.parameters())) + len(list(guide.parameters()))
    assert len(list(pyro.get_param_store())) == count


def two_plates(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("features", 6, dim=-2):
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: guide_of(None, num_steps=0), r"num_steps: expected an integer >= 1, got 0"),
    (lambda: guide_of(None, step_size=0.0), r"step_size: expected a number above 0, got 0.0"),
    (lambda: guide_of(None, step_size=float("nan")), r"step_size: .* got nan"),
    (lambda: guide_of(None, num_inner_particles=1), r"num_inner_particles: .* >= 2, got 1"),
    (lambda: guide_of(None, 0), r"latent_features of 'z': .* got 0"),
    (
        lambda: guide_of(two_plates, num_inner_particles=6)(torch.ones(4, 6)),
        r"site 'x': expected the one plate 'data', got plates \['data', 'features'\]",
    ),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_use(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()
