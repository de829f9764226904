"""The variational Rényi bound."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import is_number
from pyro_lvm.objective import Objective

__all__ = ["Renyi"]


class Renyi(Objective):
    r"""Variational Rényi bound of order alpha, in nats per datum.

    .. math:: \frac{1}{1 - \alpha} \log \tfrac1K \sum_k w_k^{1 - \alpha},
        \qquad w_k = p(x, z_k) / q(z_k \mid x)

    ``alpha=0`` is :class:`~pyro_lvm.objectives.IWAE`; alpha towards 1 is the ELBO. For
    alpha >= 0 its mean is at most :math:`\log p(x)`. For alpha < 0 it rises past
    :math:`\log p(x)` as K grows and is an estimate only: ``is_bound`` is False.

    References:
        Li, Turner (2016), *Rényi divergence variational inference*, arXiv:1602.02311.

    Args:
        alpha: order, any real number but 1.
        num_particles: draws per datum, K >= 1; at K = 1 every order is the ELBO.
        gradient: "reparam", "dreg", "score" or "vimco"; "stl" at K = 1 only.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: ``alpha`` is 1 or not finite, or another argument is out of range.

    Example:
        Square roots of the weights 1/4 and 1 have mean 3/4.

        >>> log_weights = torch.tensor([[0.25], [1.0]]).log()  # (K=2, batch=1)
        >>> Renyi(alpha=0.5, num_particles=2).bound_per_datum(log_weights)
        tensor([-0.5754])
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        alpha: float = 0.5,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        if not is_number(alpha) or alpha == 1.0 or not abs(alpha) < float("inf"):
            raise ProgramError(
                explain("alpha", "a finite number other than 1", repr(alpha), "Use ELBO for 1.")
            )
        self.alpha = alpha
        super().__init__(
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    @property
    def is_bound(self) -> bool:  # type: ignore[override]
        """Whether the expectation of :meth:`bound` is at most log p(x)."""
        return self.alpha >= 0 or self.num_particles == 1

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        power = 1.0 - self.alpha
        mean = torch.logsumexp(power * log_weights, 0) - log(log_weights.shape[0])
        return mean / power

    def elasticity(self, log_weights: Tensor) -> Tensor:
        power = 1.0 - self.alpha
        return power * (1.0 - torch.softmax(power * log_weights, 0))
