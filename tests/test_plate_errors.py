"""Plates and shapes that do not fit, and what Pyro makes of them."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import X, explained, guide, model
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyro_lvm.errors import PlateError, ProgramError
from pyro_lvm.objectives import ELBO, IWAE

# Plates.


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


# Dims.


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
