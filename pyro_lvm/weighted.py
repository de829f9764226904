r"""Objectives whose gradient is not that of their bound: three weights for each draw.

The gradient of anything estimated from weighted draws :math:`z_k \sim q_\phi(z \mid x)` is

.. math:: \sum_k a_k \, \partial_\theta \log p_\theta(x, z_k)
    + b_k \, \partial_z \log w_k \cdot \partial_\phi z_k
    + c_k \, \partial_\phi \log q_\phi(z_k \mid x)

with the draws held fixed in the first term and the last. The importance-weighted bound has
:math:`a = b = \tilde w`, :math:`c = -\tilde w`; wake-sleep methods and divergences other than
KL(q || p) choose others, different ones for model and guide. A score term becomes a path term
by :math:`\mathbb E_q[c_k \, \partial_\phi \log q] = \mathbb E[\partial c_k / \partial \log w_k
\cdot \partial_z \log w_k \cdot \partial_\phi z_k]`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.gradients import Draw, Relay, guide_scale, reparameterised
from pyro_lvm.layout import differs_from_one
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles

__all__ = ["Coefficients", "WeightedObjective"]


class Coefficients(NamedTuple):
    """Weights ``(K, *batch)`` of the ascent direction, None for zero.

    ``model`` is >= 0 wherever ``path`` is not None.
    """

    model: Tensor
    path: Tensor | None = None
    score: Tensor | None = None


class WeightedObjective(Objective):
    """A bound on log p(x) for the model, and a guide that follows a direction of its own.

    A subclass writes :meth:`bound_per_datum`, the value that is reported, and
    :meth:`coefficients`, the gradient.

    Args:
        num_particles: K draws per datum, always vectorised.
        gradient: "score" holds the draws fixed, so that sites of any kind are trained;
            "dreg" and "reparam" go through the draws, which must be reparameterised.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        The model ascends the importance-weighted bound, the guide the mean of log q over draws
        that are weighted: the wake phase of reweighted wake-sleep.

        >>> from pyro_lvm.weights import log_mean_exp
        >>> class Wake(WeightedObjective):
        ...     takes = ("score",)
        ...     def bound_per_datum(self, log_weights):
        ...         return log_mean_exp(log_weights)
        ...     def coefficients(self, log_weights):
        ...         share = torch.softmax(log_weights, 0)
        ...         return Coefficients(model=share, score=share)
        >>> Wake(num_particles=5)
        Wake(num_particles=5, gradient='score')
    """

    takes: ClassVar[tuple[str, ...]] = ("score", "dreg")
    min_particles: ClassVar[int] = 2

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "score",
        *,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    @abstractmethod
    def coefficients(self, log_weights: Tensor) -> Coefficients:
        """The gradient's weights from log-weights ``(K, *batch)``, for ``self.gradient``."""

    def estimate(self, draw: Draw) -> tuple[Particles, Tensor]:
        """Draws, and the bound ``(*batch,)`` with the gradient of the loss, negated, attached."""
        by_path = self.gradient != "score"
        relay = Relay()
        how = {"path_only": True, "direct": True, "relay": relay} if by_path else {"detach": True}
        particles = draw(**how)
        with torch.no_grad():
            log_weights = particles.log_weights
            value = self.bound_per_datum(log_weights)
            coefficients = self.coefficients(log_weights)
        if coefficients.path is not None or coefficients.score is not None:
            self._check_whole(particles)
        if by_path:
            reparameterised(particles, self.gradient)
            ascent = _through_draws(particles, relay, coefficients)
        else:
            ascent = _at_fixed_draws(particles, coefficients)
        ascent = -ascent if self.is_upper else ascent
        return particles, value + (ascent - ascent.detach())

    def _check_whole(self, particles: Particles) -> None:
        """A direction is one of the guide's densities as they are, not of their powers."""
        scale = guide_scale(particles)
        if scale is None or differs_from_one(scale):
            raise ProgramError(
                explain(
                    "poutine.scale in the guide",
                    f"densities that count in full, under {type(self).__name__}",
                    "factors of their own" if scale is None else f"a factor of {scale}",
                    "Scale the data's site alone, or use ELBO or IWAE, which have beta= too.",
                )
            )


def _at_fixed_draws(particles: Particles, coefficients: Coefficients) -> Tensor:
    total = coefficients.model * particles.log_p
    if coefficients.score is not None:
        total = total + coefficients.score * particles.log_q
    return total.sum(0)


def _through_draws(particles: Particles, relay: Relay, coefficients: Coefficients) -> Tensor:
    """The model's weight at the top, turned into the path's where the draws enter.

    A vanishing weight is raised to the square of the rounding error, below what the sum over
    particles can hold, so that the ratio of the two is finite and their product exact.
    """
    model, path, score = coefficients
    model = model.clamp_min(torch.finfo(model.dtype).eps ** 2)
    relay.multiply(particles, torch.zeros_like(model) if path is None else path / model)
    total = model * particles.log_weights
    if score is not None and particles.log_q_direct is not None:
        total = total + score * particles.log_q_direct
    return total.sum(0)
