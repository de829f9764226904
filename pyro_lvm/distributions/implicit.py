"""A distribution that can be drawn from and has no density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyro_lvm.errors import DensityError, ProgramError, explain

__all__ = ["Implicit", "is_implicit", "no_density"]

Sampler = Callable[[torch.Size], Tensor]


class Implicit(TorchDistribution):
    r"""What a sampler draws: :math:`z = g_\phi(x, \epsilon)`, with gradients and no density.

    As a site of a guide, or as a prior of a model, under an objective that learns the density
    ratio it needs (:class:`~pyro_lvm.objectives.AVB` and its relatives).

    Args:
        sampler: from a sample shape to fresh draws ``(*sample_shape, *batch, *event)``. What
            does not depend on the noise is best computed before, once a datum.
        event_dim: number of event dims, from the right.
        shape: ``(*batch, *event)``; by default that of one draw, made for it.

    Raises:
        ProgramError: the sampler's draws have another shape.
        DensityError: the density is asked for.

    Example:
        >>> h = torch.zeros(5, 2)  # a network's output, one row a datum
        >>> def sampler(sample_shape):
        ...     return h + torch.randn(sample_shape + h.shape)
        >>> z = Implicit(sampler, event_dim=1, shape=(5, 2))
        >>> z.batch_shape, z.event_shape, z.expand((3, 5)).rsample().shape
        (torch.Size([5]), torch.Size([2]), torch.Size([3, 5, 2]))
    """

    arg_constraints = {}  # noqa: RUF012  # as every torch distribution has it
    has_rsample = True

    def __init__(
        self, sampler: Sampler, event_dim: int = 0, *, shape: torch.Size | tuple[int, ...] = ()
    ) -> None:
        self.sampler = sampler
        full = torch.Size(shape) if shape else _shape_of_one(sampler)
        if not 0 <= event_dim <= len(full):
            found, hint = repr(event_dim), "Count the dims of one draw that are no plate."
            raise ProgramError(explain("event_dim", f"from 0 to {len(full)}", found, hint))
        split = len(full) - event_dim
        super().__init__(full[:split], full[split:], validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Fresh draws, ``(*sample_shape, *batch, *event)``."""
        drawn = self.sampler(torch.Size(sample_shape))
        wanted = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        if drawn.shape != wanted:
            raise ProgramError(
                explain(
                    "sampler of an Implicit distribution",
                    f"draws of shape {tuple(wanted)} for sample shape {tuple(sample_shape)}",
                    str(tuple(drawn.shape)),
                    "Draw noise of shape sample_shape + (*batch, ...) and let the rest broadcast.",
                )
            )
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        raise no_density("an Implicit distribution")


def no_density(where: str) -> DensityError:
    """The error for a density that does not exist."""
    return DensityError(
        explain(
            where,
            "a density, for this objective",
            "Implicit: it can be drawn from, and has no density",
            "Use AVB or IWAVB (a discriminator of data and latents), AAE or IWAAE (of latents).",
        )
    )


def is_implicit(fn: Any) -> bool:
    """Whether ``fn``, under whatever wraps it, is :class:`Implicit`."""
    while not isinstance(fn, Implicit) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, Implicit)


def _shape_of_one(sampler: Sampler) -> torch.Size:
    with torch.no_grad():
        return sampler(torch.Size()).shape
