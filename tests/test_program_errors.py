"""Programs that do not fit each other, and what Pyro makes of them."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import X, explained, guide, model
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from pyro_lvm.errors import (
    PlateError,
    ProgramError,
    PyroLVMError,
)
from pyro_lvm.objectives import ELBO, IWAE

# Sites.


def misnamed(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("zz", dist.Normal(torch.zeros(()), 1.0))


def test_site_names_differ() -> None:
    """Pyro trains with warnings only; ours names both lists and the nearest match."""
    with pytest.warns(UserWarning, match="vars in"):
        Trace_ELBO().loss(model, misnamed, X)
    with explained(
        ProgramError,
        "site 'z'",
        "the same latent sites",
        "['z'] in the model only (nearest there: 'zz'); model has ['z'], guide has ['zz']",
        "Rename 'zz' there, or add 'z' to the guide",
    ):
        ELBO().loss(model, misnamed, X)


def test_site_in_guide_only() -> None:
    def wider(x: Tensor) -> None:
        guide(x)
        pyro.sample("extra", dist.Normal(torch.zeros(()), 1.0))

    with explained(
        ProgramError, "site 'extra'", "same latent", "['extra'] in the guide only", "is_auxiliary"
    ):
        ELBO().loss(model, wider, X)


def test_latent_site_with_a_value_in_the_guide() -> None:
    """The model would draw another one from its prior, and weigh that."""
    held = poutine.condition(guide, {"z": X})
    with pytest.raises(RuntimeError, match="must be sampled in trace"):
        Trace_ELBO().loss(model, held, X)
    with explained(
        ProgramError, "site 'z'", "a draw in the guide", "obs= or poutine.condition", "Draw 'z'"
    ):
        ELBO().loss(model, held, X)


def test_latent_site_masked_in_one_program() -> None:
    """Its weight would be a density, of the model or of the guide, and no ratio."""
    mask = torch.arange(8) < 5
    for masked in ((model, poutine.mask(guide, mask)), (poutine.mask(model, mask), guide)):
        with explained(
            ProgramError, "site 'z'", "one poutine.mask", "another one in the guide", "ImproperUn"
        ):
            IWAE(2).loss(*masked, X)
    both = [poutine.mask(program, mask) for program in (model, guide)]
    assert IWAE(2).bound(*both, X)[5:].eq(0).all()


def test_data_with_a_dim_more() -> None:
    """As many particles as data: each particle would be scored on another datum."""

    def of_columns(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def unplated(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide_alone(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    for programs, x, shape in (
        ((of_columns, guide), X[:, None], "(8, 1)"),
        ((unplated, guide_alone), X, "(8,)"),
    ):
        with explained(PlateError, "site 'x'", "data of batch shape", shape, "x.squeeze(-1)"):
            IWAE(len(X)).bound(*programs, x)


def test_dims_counted_from_the_left() -> None:
    """With particles in front, ``z[:, 0]`` is the latent of the first datum, for all of them."""

    def of_columns(x: Tensor, noise: float = 0.0) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = z[:, 0] + noise * torch.randn(())
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: Tensor, noise: float = 0.0) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None] / 2, 0.7).to_event(1))

    with explained(ProgramError, "site 'x'", "one log-prob", "dim stands", "z[..., 0] for z[:, 0]"):
        ELBO().loss(of_columns, guide, X)
    assert ELBO(2).loss(of_columns, guide, X, noise=1.0), "another one whenever it is run"


def test_dims_of_a_guide_counted_from_the_left() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            y = pyro.sample("y", dist.Normal(z[..., 0], 1.0))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x[:, None] / 2, 0.7).to_event(1))
            pyro.sample("y", dist.Normal(z[:, 0], 1.0))

    with explained(ProgramError, "site 'y'", "one log-prob", "dim stands", "z[..., 0] for z[:, 0]"):
        ELBO().loss(model, guide, X)


def test_mask_with_a_dim_more() -> None:
    def of_columns(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.mask(mask=x[:, None] > 0):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with explained(PlateError, "site 'x'", "a mask of batch shape (8,)", "(8, 1)", "x.squeeze"):
        IWAE(len(X)).bound(of_columns, guide, X)


def test_dropout_between_the_latents_of_a_guide() -> None:
    """A path gradient runs a two-level guide twice; dropout would differ between the runs."""

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noise = nn.Dropout(0.5)

        def forward(self) -> None:
            with pyro.plate("data", 4):
                z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
                pyro.sample("y", dist.Normal(self.noise(z), 1.0))

    def two_levels() -> None:
        with pyro.plate("data", 4):
            y = pyro.sample("y", dist.Normal(torch.zeros(()), 1.0))
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(4))

    guide = Guide()
    assert IWAE(3).differentiable_loss(two_levels, guide).isfinite()
    with explained(ProgramError, "module 'noise'", "one density twice", "Dropout(p=0.5", "reparam"):
        IWAE(3, "dreg").differentiable_loss(two_levels, guide)
    assert IWAE(3, "dreg").differentiable_loss(two_levels, guide.eval()).isfinite()


def test_model_and_guide_swapped() -> None:
    def bare(x: Tensor) -> None:
        guide(x)

    with explained(
        ProgramError, "site 'x'", "observed in the model", "in the guide only", "Check the order"
    ):
        ELBO().loss(bare, model, X)


def test_a_latent_with_a_value_in_the_model() -> None:
    """Conditioned, say: renaming it would not help, and what the message advises does."""
    given = {"z": torch.zeros(8)}
    conditioned = pyro.poutine.condition(model, given)
    with explained(
        ProgramError,
        "site 'z'",
        "a latent in both",
        "a value in the model, by obs= or poutine.condition",
        "poutine.block(guide, hide=['z'])",
    ):
        ELBO().loss(conditioned, guide, X)
    expected = pyro.poutine.trace(conditioned).get_trace(X).log_prob_sum()
    for other in (pyro.poutine.condition(guide, given), pyro.poutine.block(guide, hide=["z"])):
        assert -ELBO().loss(conditioned, other, X) == pytest.approx(expected.item())


def test_names_are_checked_on_later_programs_too() -> None:
    objective = ELBO()
    objective.loss(model, guide, X)
    with explained(ProgramError, "site 'z'", "same latent", "in the model only", "Rename"):
        objective.loss(model, misnamed, X)


def test_the_first_look_checks_without_validation_too() -> None:
    fits = explained(ProgramError, "site 'z'", "same latent", "in the model only", "Rename")
    with pyro.validation_enabled(False), fits:
        ELBO().loss(model, misnamed, X)


def test_mixing_variable() -> None:
    def mixed(x: Tensor) -> None:
        psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 1.0), infer={"is_auxiliary": True})
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(psi, 1.0))

    with explained(
        ProgramError,
        "auxiliary site 'psi'",
        "an explicit density for 'z'",
        "a mixing variable",
        "marginalises mixing variables",
    ):
        IWAE(3).loss(model, mixed, X)


@pytest.mark.parametrize(
    "objective", [ELBO(2), ELBO(2, "stl"), IWAE(2, "dreg")], ids=lambda o: o.gradient
)
def test_discrete_site(objective: Any) -> None:
    def coin_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def coin_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))

    with explained(
        ProgramError,
        "site 'z'",
        f"gradient='{objective.gradient}'",
        "one without rsample (all such sites: ['z'])",
        "gradient='score' (leave-one-out REINFORCE), 'vimco' or 'ovis'",
    ):
        objective.loss_and_grads(coin_model, coin_guide, X)
    assert torch.isfinite(objective.bound(coin_model, coin_guide, X)).all()


def test_twice_the_same_site() -> None:
    def twice(x: Tensor) -> None:
        guide(x)
        guide(x)

    with explained(ProgramError, "site 'z'", "one sample statement", "two", "its own name"):
        ELBO().loss(model, twice, X)


def test_programs_without_sites() -> None:
    def nothing(x: Tensor) -> None:
        pass

    with explained(ProgramError, "model", "sample", "none", "pyro.sample"):
        ELBO().loss(nothing, nothing, X)


def test_value_outside_the_support() -> None:
    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.LogNormal(z, 1.0), obs=x)

    with explained(PyroLVMError, "site 'x'", "LogNormal", "support", "coding and shape"):
        ELBO().loss(positive, guide, X)


# Plates and shapes.


def test_plate_sizes_differ() -> None:
    """A model of 100 data and a guide of 8: Pyro scales the likelihood alone, 12.5 times."""

    def small_guide(x: Tensor) -> None:
        guide(x)

    def big_model(x: Tensor) -> None:
        model(x, 100, torch.arange(8))

    pyro.set_rng_seed(0)
    scaled = Trace_ELBO().loss(big_model, small_guide, X)
    pyro.set_rng_seed(0)
    trace = poutine.trace(small_guide).get_trace(X)
    trace_p = poutine.trace(poutine.replay(model, trace)).get_trace(X)
    by_hand = trace.log_prob_sum() - 12.5 * trace_p.log_prob_sum()
    assert scaled == pytest.approx(float(by_hand), rel=1e-5)

    with explained(
        PlateError, "plate 'data'", "one size", "100 in the model and 8 in the guide", "subsample="
    ):
        ELBO().loss(big_model, small_guide, X)


def test_minibatch_sizes_differ() -> None:
    def shorter(x: Tensor) -> None:
        guide(x, 100, torch.arange(4))

    def longer(x: Tensor) -> None:
        model(x, 100, torch.arange(8))

    with explained(PlateError, "plate 'data'", "one", "4 of 100", "subsample="):
        ELBO().loss(longer, shorter, X)


def test_minibatches_differ() -> None:
    """Both programs choose, and choose other rows: z of some data would meet x of others."""

    def first(x: Tensor) -> None:
        guide(x, 8, torch.arange(4))

    def second(x: Tensor) -> None:
        model(x, 8, torch.arange(4, 8))

    with explained(PlateError, "plate 'data'", "one", "", "subsample="):
        ELBO().loss(second, first, X)


def test_plate_dims_differ() -> None:
    def left(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with explained(
        PlateError,
        "plate 'data' at site",
        "one dim and one size",
        "dim -2 with 8 of 8",
        "same arguments",
    ):
        ELBO().loss(model, left, X)


def test_autoguide_redraws_the_subsample() -> None:
    """Pyro silently trains other data than the caller chose; ours says how to mend it."""
    chosen = torch.arange(4)
    autoguide = AutoNormal(model)
    autoguide(X, 8, chosen)
    seen = []

    def watched(x: Tensor, size: int, subsample: Tensor) -> None:
        with pyro.plate("data", size, subsample=subsample) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])
            seen.append(index.tolist())

    Trace_ELBO().loss(watched, autoguide, X, 8, chosen)
    assert sorted(seen[0]) != chosen.tolist()

    with explained(
        PlateError,
        "plate 'data'",
        "the model's subsample= indices",
        "its own random subsample",
        "create_plates",
    ):
        ELBO().loss(watched, autoguide, X, 8, chosen)

    seen.clear()
    mended = AutoNormal(
        watched, create_plates=lambda x, size, sub: pyro.plate("data", size, subsample=sub)
    )
    ELBO().loss(watched, mended, X, 8, chosen)
    assert all(index == chosen.tolist() for index in seen)


def unplated(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def unplated_guide(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(torch.zeros(8), 1.0))


@pytest.mark.parametrize("nesting", [None, 1])
def test_unplated_batch_dim(nesting: int | None) -> None:
    """Passes silently in Pyro with max_plate_nesting=1 and vectorised particles."""
    silent = Trace_ELBO(num_particles=4, max_plate_nesting=1, vectorize_particles=True)
    assert isinstance(silent.loss(unplated, unplated_guide, X), float)
    with explained(PlateError, "site '", "a plate for each batch dim", "dim -1 of size 8", "plate"):
        IWAE(4, max_plate_nesting=nesting).loss(unplated, unplated_guide, X)


@pytest.mark.parametrize("num_particles", [8, 4])
def test_unplated_batch_dim_where_the_particles_go(num_particles: int) -> None:
    """Eight unplated entries are no eight particles, however many of those there are."""
    objective = IWAE(num_particles, max_plate_nesting=0)
    with explained(PlateError, "site 'z'", "a plate for each batch dim", "of size 8", "plate"):
        objective.loss(unplated, unplated_guide, X)


def test_event_shapes_differ() -> None:
    def vector_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def short_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with explained(PlateError, "site 'z'", "event shape (3,)", "(2,)", "to_event"):
        ELBO().loss(vector_model, short_guide, X)


def test_particle_dim_collides_with_a_plate() -> None:
    with explained(
        PlateError,
        "site 'z', plate 'data'",
        "within the last 0 dims",
        "a plate at dim -1",
        "max_plate_nesting=1",
    ):
        IWAE(3, max_plate_nesting=0).loss(model, guide, X)


def test_scale_that_no_datum_owns() -> None:
    def nested(program: Callable[..., None]) -> Callable[..., None]:
        def scaled(x: Tensor) -> None:
            with poutine.scale(scale=torch.tensor([[1.0], [2.0]])):
                program(x)

        return scaled

    def wide_model(x: Tensor) -> None:
        u = pyro.sample("u", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("group", 2, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(u, 1.0), obs=x.expand(2, len(x)))

    def wide_guide(x: Tensor) -> None:
        pyro.sample("u", dist.Normal(torch.zeros(()), 1.0))

    with explained(
        PlateError, "poutine.scale", "over the batch plates []", "shape (2, 1)", "one by one"
    ):
        IWAE(2).loss(nested(wide_model), nested(wide_guide), X)


def test_global_latent_under_subsampling() -> None:
    def joint_model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), subsample_size=2) as index:
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x[index])

    def joint_guide(x: Tensor) -> None:
        pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))

    with explained(PlateError, "plate 'data'", "IWAE with K > 1", "a site outside it", "Use ELBO"):
        IWAE(2).loss(joint_model, joint_guide, X)
