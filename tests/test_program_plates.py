"""Plates of a program: in sequence, crossed, nested, left of the data."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import X, guide, log_evidence, model
from torch import Tensor

from pyro_lvm.errors import PlateError
from pyro_lvm.objectives import IWAE

pytestmark = pytest.mark.usefixtures("float64")


def sequential_model(x: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z{i}", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])


def sequential_guide(x: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z{i}", dist.Normal(x[i] / 2, 0.5**0.5))


def test_sequential_plate_is_one_joint_weight() -> None:
    """A loop over data makes one weight of them all; with the exact posterior, log p(x)."""
    bound = IWAE(3).bound(sequential_model, sequential_guide, X)
    torch.testing.assert_close(bound, log_evidence(X).sum())


def crossed_model(x: Tensor) -> None:
    a = pyro.plate("a", x.shape[0], dim=-2)
    b = pyro.plate("b", x.shape[1], dim=-1)
    with a:
        u = pyro.sample("u", dist.Normal(torch.zeros(()), 1.0))
    with b:
        v = pyro.sample("v", dist.Normal(torch.zeros(()), 1.0))
    with a, b:
        pyro.sample("x", dist.Normal(u + v, 1.0), obs=x)


def crossed_guide(x: Tensor) -> None:
    with pyro.plate("a", x.shape[0], dim=-2):
        pyro.sample("u", dist.Normal(0.5 * x.mean(-1, keepdim=True), 0.7))
    with pyro.plate("b", x.shape[1], dim=-1):
        pyro.sample("v", dist.Normal(0.5 * x.mean(0), 0.7))


def test_crossed_plates() -> None:
    """No plate holds every site: one joint weight, as computed by hand."""
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    particles = IWAE(4).particles(crossed_model, crossed_guide, x)
    u, v = particles.values["u"], particles.values["v"]
    assert (u.shape, v.shape) == ((4, 2, 1), (4, 1, 3))
    assert particles.plates == {"u": ("a", None), "v": (None, "b")}
    prior = dist.Normal(0.0, 1.0)
    by_hand = (
        dist.Normal(u + v, 1.0).log_prob(x).sum((-2, -1))
        + (prior.log_prob(u) - dist.Normal(x.mean(-1, True) / 2, 0.7).log_prob(u)).sum((-2, -1))
        + (prior.log_prob(v) - dist.Normal(x.mean(0) / 2, 0.7).log_prob(v)).sum((-2, -1))
    )
    torch.testing.assert_close(particles.log_weights, by_hand)


def nested(program: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """The same data in an outer plate of one group more to the left."""

    def inner(x: Tensor) -> None:
        with pyro.plate("group", 2, dim=-2):
            program(x)

    return inner


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 2, 1)])
def test_one_objective_on_models_of_other_nesting(order: tuple[int, ...]) -> None:
    objective = IWAE(3)
    for depth in order:
        programs = [p if depth == 1 else nested(p) for p in (model, guide)]
        assert objective.bound(*programs, X).shape == ((3,) if depth == 1 else (2, 3))


def features_model(x: Tensor) -> None:
    """Features of a datum in a plate to the left: only the data carry it."""
    with pyro.plate("data", x.shape[-1]):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("features", x.shape[0], dim=-2):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def features_guide(x: Tensor) -> None:
    with pyro.plate("data", x.shape[-1]):
        pyro.sample("z", dist.Normal(x.mean(0), 0.9))


def test_one_objective_where_only_the_data_nest_deeper() -> None:
    objective = IWAE(5)
    assert objective.bound(model, guide, X).shape == (3,)
    assert objective.bound(features_model, features_guide, torch.ones(4, 3)).shape == (3,)


@pytest.mark.parametrize("nesting", [1, 2, 4])
def test_explicit_nesting_may_be_too_large(nesting: int) -> None:
    objective = IWAE(4, "dreg", max_plate_nesting=nesting)
    assert objective.bound(model, guide, X).shape == (3,)
    assert torch.isfinite(objective.differentiable_loss(model, guide, X))


def test_explicit_nesting_too_small() -> None:
    with pytest.raises(PlateError, match="Pass max_plate_nesting=1 or more, or leave it out"):
        IWAE(4, max_plate_nesting=0).loss(model, guide, X)
