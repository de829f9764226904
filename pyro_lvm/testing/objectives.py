"""Contract of objectives."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm import gradients
from pyro_lvm.objective import Objective
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.testing.contract import require, strict

__all__ = ["check_objective"]


def check_objective(objective: Objective, *, size: int = 6) -> None:
    """Check an objective whose bound is a function of the log-weights, in float64.

    The bound of a datum: the same for permuted particles, raised by c with its log-weights,
    c where they all are c, blind to other data, for any K; its elasticity that of autograd.
    The losses: one value and one gradient by every entry point; minibatches that add up and
    are scaled by N/B; log p(x) where the guide is the exact posterior. Copies and a
    ``state_dict`` round trip go on as the original does.

    Args:
        objective: built with any arguments; it is left as it was.
        size: number of data.

    Raises:
        ContractError: the first thing that does not hold.

    Example:
        >>> from pyro_lvm.objectives import IWAE
        >>> check_objective(IWAE(num_particles=5, gradient="dreg"))
    """
    with strict():
        _check_bound(objective, size)
        for num_particles in _counts(objective):
            _check_elasticity(objective, _log_weights(num_particles, size))
        oracle = LinearGaussian(torch.randn(3, 2).double(), torch.ones(3).double())
        x = torch.randn(size, 3).double()
        _check_minibatches(objective, oracle, x)
        _check_entry_points(objective, oracle, x)
        _check_copies(objective, oracle, x)


def _counts(objective: Objective) -> set[int]:
    """Numbers of particles to try; some objectives take whole groups."""
    group = int(getattr(objective, "num_groups", 1))
    return {group, 2 * group, objective.num_particles}


def _log_weights(num_particles: int, size: int) -> Tensor:
    return 2 * torch.randn(num_particles, size, dtype=torch.float64)


def _require_equal(where: str, found: Tensor, expected: Tensor, hint: str) -> None:
    same = found.shape == expected.shape and torch.allclose(found, expected, 1e-9, 1e-9)
    require(same, where, str(expected.tolist()), found.tolist(), hint)


def _check_bound(objective: Objective, size: int) -> None:
    bound = objective.bound_per_datum
    hint = "Write bound_per_datum as a mean over particles, datum by datum."
    for num_particles in _counts(objective):
        log_weights = _log_weights(num_particles, size)
        value = bound(log_weights)
        _require_equal("bound of permuted particles", bound(log_weights.flip(0)), value, hint)
        _require_equal("bound of log-weights + 3", bound(log_weights + 3), value + 3, hint)
        _require_equal("bound of permuted data", bound(log_weights.flip(1)), value.flip(0), hint)
        one_by_one = torch.cat([bound(datum) for datum in log_weights.split(1, 1)])
        _require_equal("bounds of single data", one_by_one, value, hint)
        constant = torch.full_like(log_weights, -700.0)
        _require_equal("bound of equal log-weights", bound(constant), constant[0], hint)


def _check_elasticity(objective: Objective, log_weights: Tensor) -> None:
    generic = gradients.elasticity(objective.bound_per_datum, log_weights)
    hint = "Correct elasticity, or leave it out: the base class has a generic one."
    _require_equal("elasticity", objective.elasticity(log_weights), generic, hint)


def _check_minibatches(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """The exact posterior takes the noise away, so every number is known."""
    objective = deepcopy(objective)
    programs = oracle.model, oracle.exact_guide
    exact = oracle.log_evidence(x)
    hint = "Keep the N/B scale and the sum over data out of bound_per_datum."
    halves = torch.cat([objective.bound(*programs, half) for half in x.split(2)])
    _require_equal("bounds of minibatches", halves, exact, hint)
    _require_equal("bound under the exact posterior", objective.bound(*programs, x), exact, hint)
    if _is_plain(objective):
        loss = objective.loss(*programs, x, size=len(x), subsample=torch.arange(2))
        sign = 1 if objective.is_upper else -1
        scaled = sign * exact[:2].sum() * len(x) / 2
        _require_equal("loss of 2 data", torch.tensor(loss, dtype=x.dtype), scaled, hint)


def _is_plain(objective: Objective) -> bool:
    return objective.beta == 1.0 and objective.free_bits == 0.0


def _check_entry_points(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """The guide is random and trainable; each call starts from one seed and one state."""
    shift = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2] * shift, 1.1).to_event(1))

    def by(name: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        shift.grad = None
        fresh: Any = deepcopy(objective)
        call = fresh(oracle.model, guide) if name == "forward" else getattr(fresh, name)
        value = call(x) if name == "forward" else call(oracle.model, guide, x)
        if isinstance(value, Tensor):
            value.backward()
        gradient = torch.zeros_like(shift) if shift.grad is None else shift.grad
        return torch.as_tensor(value, dtype=x.dtype).detach(), gradient

    value, gradient = by("differentiable_loss")
    hint = "Leave the losses to Objective, which derives them from one another."
    for name in ("loss", "loss_and_grads", "forward"):
        found, its_gradient = by(name)
        _require_equal(name, found, value, hint)
        expected = torch.zeros_like(shift) if name == "loss" else gradient
        _require_equal(f"gradient of {name}", its_gradient, expected, hint)


def _check_copies(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """What goes on from a copy or a loaded state gives the numbers the original gives."""
    original = deepcopy(objective)
    _steps(original, oracle, x)
    restored = deepcopy(objective)
    restored.load_state_dict(original.state_dict())
    expected = _steps(deepcopy(original), oracle, x)
    hint = "Keep all state in state_dict, as numbers and tensors."
    _require_equal("losses after load_state_dict", _steps(restored, oracle, x), expected, hint)
    plain = all(_is_savable(value) for value in original.state_dict().values())
    require(plain, "state_dict", "numbers and tensors", original.state_dict(), hint)


def _steps(objective: Objective, oracle: LinearGaussian, x: Tensor) -> Tensor:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.1).to_event(1))

    torch.manual_seed(2)
    losses = [objective.differentiable_loss(oracle.model, guide, x) for _ in range(3)]
    return torch.stack(losses).detach()


def _is_savable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_savable(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_savable(inner) for inner in value)
    return value is None or isinstance(value, str | bool | int | float | Tensor)
