"""Particles in groups, as the objectives that average several bounds take them."""

from __future__ import annotations

from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.weights import log_mean_exp

__all__ = ["check_groups", "grouped", "mean_of_bounds"]


def mean_of_bounds(log_weights: Tensor, num_groups: int) -> Tensor:  # (*batch,)
    """Mean of the importance-weighted bounds of M groups; of one draw each, their log-weights."""
    if num_groups == len(log_weights):
        return log_weights.mean(0)
    return log_mean_exp(grouped(log_weights, num_groups)).mean(0)


def grouped(log_weights: Tensor, num_groups: int) -> Tensor:  # (L, M, *batch)
    """Log-weights ``(K, *batch)`` of M groups of L = K / M consecutive draws."""
    groups: Tensor = log_weights.unflatten(0, (num_groups, -1))
    return groups.transpose(0, 1)


def check_groups(num_groups: int, num_particles: int) -> int:
    """``num_groups``, if it divides ``num_particles``.

    Raises:
        ProgramError: it does not, or is not an integer >= 1.
    """
    if not isinstance(num_groups, int) or num_groups < 1 or num_particles % num_groups:
        raise ProgramError(
            explain(
                "num_groups",
                f"an integer that divides num_particles={num_particles}",
                repr(num_groups),
                "num_particles counts all draws: 8 groups of 8 are num_particles=64.",
            )
        )
    return num_groups
