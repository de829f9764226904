r"""Hamiltonian Monte Carlo between a start distribution and a joint density, many chains at once.

The target at inverse temperature :math:`\beta` is the geometric mean
:math:`q_0(z)^{1 - \beta} \, p(x, z)^\beta`. Every chain of every datum moves by itself: its own
momentum, its own Metropolis test.

References:
    Neal (2011), *MCMC using Hamiltonian dynamics*, arXiv:1206.1901, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Path", "Point", "transition"]

_JITTER = 0.2  # of the step size, drawn anew each time: breaks periodic orbits (section 4.2)


class Point(NamedTuple):
    """Where the chains are, with both ends of the path and their slopes there."""

    position: Tensor  # (M, *batch, D)
    log_start: Tensor  # (M, *batch), nats
    log_joint: Tensor  # (M, *batch)
    start_slope: Tensor  # (M, *batch, D)
    joint_slope: Tensor  # (M, *batch, D)

    @property
    def log_ratio(self) -> Tensor:  # (M, *batch)
        """By how much the log-density at the end exceeds that at the start, nats."""
        return self.log_joint - self.log_start

    def tempered(self, beta: float) -> Tensor:  # (M, *batch)
        """Log-density of the target at ``beta``, nats, up to a constant."""
        return (1 - beta) * self.log_start + beta * self.log_joint

    def slope(self, beta: float) -> Tensor:  # (M, *batch, D)
        """Gradient of :meth:`tempered` by the position."""
        return (1 - beta) * self.start_slope + beta * self.joint_slope


Path = Callable[[Tensor], Point]


def transition(
    path: Path, point: Point, beta: float, step_size: Tensor, num_leapfrog: int
) -> tuple[Point, Tensor]:
    """One proposal of ``num_leapfrog`` steps, accepted or not: leaves the target invariant.

    A proposal with a density that is not a number is rejected.

    Args:
        path: evaluates positions ``(M, *batch, D)``.
        point: where the chains are.
        beta: inverse temperature of the target, in (0, 1).
        step_size: broadcastable to the position; 0 where an entry must stay.
        num_leapfrog: steps, each with one evaluation of ``path``.

    Returns:
        The next point, and the acceptance probabilities ``(M, *batch)``.

    Example:
        Chains that start at 3 come to a standard Normal.

        >>> def path(z):
        ...     log_density = -z.square().sum(-1) / 2
        ...     return Point(z, log_density, log_density, -z, -z)
        >>> _ = torch.manual_seed(0)
        >>> point = path(torch.full((1000, 1), 3.0))
        >>> for _ in range(5):
        ...     point, accepted = transition(path, point, 0.5, torch.tensor(0.3), 5)
        >>> bool(point.position.mean().abs() < 0.1), bool((point.position.std() - 1).abs() < 0.1)
        (True, True)
    """
    jitter = 1 + _JITTER * (2 * torch.rand_like(point.log_joint) - 1)
    step = step_size * jitter[..., None]
    momentum = torch.randn_like(point.position)
    moved, kicked = point, momentum + step / 2 * point.slope(beta)
    for _ in range(num_leapfrog):
        moved = path(moved.position + step * kicked)
        kicked = kicked + step * moved.slope(beta)
    kicked = kicked - step / 2 * moved.slope(beta)  # the last kick is a half one
    kinetic = (momentum.square() - kicked.square()).sum(-1) / 2
    log_ratio = moved.tempered(beta) - point.tempered(beta) + kinetic
    accepted = log_ratio.clamp(max=0).exp().nan_to_num(0.0)
    taken = torch.rand_like(accepted) < accepted
    return _choose(taken, moved, point), accepted


def _choose(taken: Tensor, moved: Point, point: Point) -> Point:
    def either(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(taken[..., None] if new.dim() > taken.dim() else taken, new, old)

    return Point(*map(either, moved, point))
