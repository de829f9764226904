"""The contract of every objective class, discovered, and what the base adds to a bound."""

import pickle
import re
from copy import deepcopy
from inspect import signature
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import X, model
from exact_models import EXPLICIT
from torch import Tensor

from pyro_lvm import objectives
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import (
    CIWAE,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    TVO,
    AlphaDivergence,
    Renyi,
    ReweightedWakeSleep,
)
from pyro_lvm.testing import ContractError, check_objective, discover

pytestmark = pytest.mark.usefixtures("float64")

CLASSES = discover("pyro_lvm.objectives", Objective)


def takes_beta(cls: type) -> bool:
    return "beta" in signature(cls).parameters


CELLS = [
    *[cls(k) for cls in EXPLICIT for k in (1, 5) if k >= cls.min_particles],
    *[cls(5, g) for cls in EXPLICIT for g in ("dreg", "score", "vimco") if g in cls.takes],
    *[cls(3, beta=LinearWarmup(4, 0.2), free_bits=0.1) for cls in EXPLICIT if takes_beta(cls)],
    *[cls(4, num_groups=2) for cls in (MIWAE, PIWAE)],
    *[cls(6, gradient, num_groups=2) for cls in (MIWAE, PIWAE) for gradient in ("dreg",)],
    *[MIWAE(6, gradient, num_groups=3) for gradient in ("score", "vimco", "ovis")],
    CIWAE(5, "dreg", elbo_weight=0.0),
    TVO(5, num_partitions=1),
    AlphaDivergence(5, alpha=0.0),
    AlphaDivergence(5, "dreg", alpha=-0.5),
    ReweightedWakeSleep(5, insomnia=0.4),
    ReweightedWakeSleep(5, "dreg", insomnia=0.4),
    IWAE(5, "ovis"),
    ELBO(5, "stl"),
    Renyi(5, alpha=-1.5),
    Renyi(5, alpha=3.0),
]


def label(objective: Objective) -> str:
    return f"{type(objective).__name__}-{objective.gradient}-{objective.num_particles}"


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2 + 0.2, 0.9))


# The contract.


@pytest.mark.parametrize("objective", CELLS, ids=label)
def test_contract(objective: Objective) -> None:
    check_objective(objective)


@pytest.mark.parametrize("cls", CLASSES)
def test_exported_and_documented(cls: type) -> None:
    assert cls.__name__ in objectives.__all__
    assert getattr(objectives, cls.__name__) is cls
    text = cls.__doc__ or ""
    assert re.search(r"References:\n.*\(\d{4}\)", text)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", text)
    for part in ("nats", "Args:", "Raises:", "Example:", ">>> "):
        assert part in text, f"{cls.__name__} has no {part}"


def test_the_list_is_the_folder() -> None:
    assert {cls.__name__ for cls in CLASSES} == {
        name for name in objectives.__all__ if isinstance(getattr(objectives, name), type)
    }


class Summed(Objective):
    """A faulty bound: it mixes the data of a batch."""

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0).mean().expand(log_weights.shape[1:])


class Unscaled(Objective):
    """A faulty bound: the log of a sum where a mean belongs."""

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return torch.logsumexp(log_weights, 0)


class Bent(Objective):
    """A sound bound with a wrong elasticity."""

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return IWAE.bound_per_datum(self, log_weights)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return torch.softmax(log_weights, 0) ** 2


class Forgetful(Objective):
    """A sound bound whose schedule a checkpoint forgets."""

    bound_per_datum = ELBO.bound_per_datum

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"step": 0}


FAULTS = {
    Summed(3): "bound",
    Unscaled(3): "bound of equal log-weights",
    Bent(3): "elasticity",
    Forgetful(3, beta=LinearWarmup(10)): "losses after load_state_dict",
}


@pytest.mark.parametrize("objective", FAULTS, ids=label)
def test_contract_sees_faults(objective: Objective) -> None:
    with pytest.raises(ContractError, match=rf"{FAULTS[objective]}.*: expected"):
        check_objective(objective)


def test_classes_are_abstract_or_final() -> None:
    with pytest.raises(TypeError, match="class Child: expected an abstract base"):
        type("Child", (ELBO,), {})
    with pytest.raises(TypeError, match="its own loss"):
        type("Own", (Objective,), {"loss": lambda self: 0.0})
    with pytest.raises(TypeError, match="abstract"):
        Objective()  # type: ignore[abstract]


# Bounds as functions.


def test_bound_rises_with_particles() -> None:
    """Over 20 000 data of log-weights N(0, 1); IWAE's mean is between 0 and log E w = 1/2."""
    log_weights = torch.randn(64, 20_000)
    means = [IWAE(k).bound_per_datum(log_weights[:k]).mean() for k in (1, 2, 8, 64)]
    assert means == sorted(means)
    assert abs(means[0]) < 4 / 20_000**0.5
    assert 0.4 < means[-1] < 0.5


def test_order_zero_is_iwae_and_order_near_one_the_elbo() -> None:
    log_weights = torch.randn(5, 7)
    zero = Renyi(5, alpha=0.0).bound_per_datum(log_weights)
    torch.testing.assert_close(zero, IWAE(5).bound_per_datum(log_weights))
    near = Renyi(5, alpha=1 - 1e-7).bound_per_datum(log_weights)
    torch.testing.assert_close(near, ELBO(5).bound_per_datum(log_weights), rtol=0, atol=1e-5)


def test_which_are_bounds() -> None:
    assert [o.is_bound for o in (ELBO(), IWAE(5), Renyi(5, alpha=2.0))] == [True] * 3
    assert not Renyi(5, alpha=-0.5).is_bound
    assert Renyi(1, alpha=-0.5).is_bound


@pytest.mark.parametrize("cls", EXPLICIT)
def test_extreme_weights_stay_finite(cls: type[Objective]) -> None:
    log_weights = torch.tensor([[-1e4, 1e4], [-2e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    value = cls(3).bound_per_datum(log_weights)
    value.sum().backward()
    assert log_weights.grad is not None
    assert bool(torch.isfinite(value).all() & torch.isfinite(log_weights.grad).all())
    assert bool(torch.isfinite(cls(3).elasticity(log_weights.detach())).all())


# Copies.


@pytest.mark.parametrize("objective", CELLS, ids=label)
def test_copy_and_pickle(objective: Objective) -> None:
    losses = []
    for again in (objective, deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        pyro.set_rng_seed(1)
        losses.append(deepcopy(again).loss(model, guide, X))
    assert losses[0] == losses[1] == losses[2]


def test_state_dict_loads_with_weights_only(tmp_path: Any) -> None:
    objective = IWAE(3, beta=LinearWarmup(10))
    for _ in range(4):
        objective.differentiable_loss(model, guide, X)
    torch.save(objective.state_dict(), tmp_path / "state.pt")
    restored = IWAE(3, beta=LinearWarmup(10))
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.beta_now() == objective.beta_now() == 0.4


# Warm-up and free bits, against numbers by hand.


def by_hand(objective: Objective) -> tuple[float, Tensor, Tensor]:
    """The loss at one seed, with the log-likelihoods and log-ratios of the same draws."""
    pyro.set_rng_seed(5)
    loss = objective.loss(model, guide, X)
    pyro.set_rng_seed(5)
    z = objective.particles(model, guide, X).values["z"]
    log_ratio = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(X / 2 + 0.2, 0.9).log_prob(z)
    return loss, dist.Normal(z, 1.0).log_prob(X), log_ratio


@pytest.mark.parametrize("cls", [c for c in EXPLICIT if takes_beta(c)])
@pytest.mark.parametrize("beta", [0.0, 0.5, lambda step: 0.5, LinearWarmup(2, 0.5)])
def test_beta(cls: type[Objective], beta: Any) -> None:
    objective = cls(4, beta=beta)
    factor = 0.0 if beta == 0.0 else 0.5
    loss, likelihood, ratio = by_hand(objective)
    value = objective.bound_per_datum(likelihood + factor * ratio)
    assert loss == pytest.approx(-value.sum().item())


@pytest.mark.parametrize("cls", [c for c in EXPLICIT if takes_beta(c)])
@pytest.mark.parametrize("free_bits", [1e-3, 100.0])
def test_free_bits(cls: type[Objective], free_bits: float) -> None:
    """A KL above the floor is left alone; one below it counts as the floor."""
    objective = cls(4, free_bits=free_bits)
    loss, likelihood, ratio = by_hand(objective)
    assert 1e-3 < -ratio.mean() < 100.0
    floored = ratio if free_bits < 1.0 else torch.full_like(ratio, -100.0)
    value = objective.bound_per_datum(likelihood + floored)
    assert loss == pytest.approx(-value.sum().item())


def test_free_bits_floor_each_site() -> None:
    """Two latent sites, one far from its prior: only the other is floored."""

    def two(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def near_and_far(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.tensor(0.01), 1.0))
            pyro.sample("b", dist.Normal(torch.tensor(4.0), 1.0))

    objective = ELBO(50, free_bits=0.5)
    pyro.set_rng_seed(5)
    loss = objective.loss(two, near_and_far, X)
    pyro.set_rng_seed(5)
    parts = objective.particles(two, near_and_far, X).parts
    far = (parts["b"].log_p - parts["b"].log_q).mean(0)
    expected = parts["x"].log_p.mean(0) + far - 0.5
    assert loss == pytest.approx(-expected.sum().item())


def test_bound_knows_no_warm_up() -> None:
    plain, annealed = IWAE(4), IWAE(4, beta=0.1, free_bits=3.0)
    bounds = []
    for objective in (plain, annealed):
        pyro.set_rng_seed(6)
        bounds.append(objective.bound(model, guide, X))
    torch.testing.assert_close(*bounds)


def test_schedule_counts_training_steps_only() -> None:
    """One step for each differentiable loss with gradients enabled, whatever asks for it."""
    objective = ELBO(2, beta=LinearWarmup(10))
    objective.bound(model, guide, X)
    objective.loss(model, guide, X)
    with torch.no_grad():
        objective.differentiable_loss(model, guide, X)
    assert (objective.step, objective.beta_now()) == (0, 0.0)
    objective.differentiable_loss(model, guide, X)
    objective(model, guide)(X)
    objective.loss_and_grads(model, guide, X)
    assert (objective.step, objective.beta_now()) == (3, 0.3)


def test_repr_shows_what_was_chosen() -> None:
    assert repr(IWAE(5, "dreg")) == "IWAE(num_particles=5, gradient='dreg')"
    renyi = Renyi(3, alpha=0.3, max_plate_nesting=2)
    assert repr(renyi) == (
        "Renyi(num_particles=3, gradient='reparam', alpha=0.3, max_plate_nesting=2)"
    )
