"""The combination of ELBO and importance-weighted bound."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import is_number
from pyro_lvm.objective import Objective
from pyro_lvm.weights import log_mean_exp

__all__ = ["CIWAE"]


class CIWAE(Objective):
    r"""Combination of the ELBO and the importance-weighted bound, in nats per datum.

    .. math:: \beta \, \tfrac1K \sum_k \log w_k + (1 - \beta) \log \tfrac1K \sum_k w_k,
        \qquad w_k = p(x, z_k) / q(z_k \mid x)

    Both from the same draws. ``elbo_weight=1`` is :class:`~pyro_lvm.objectives.ELBO`, 0 is
    :class:`~pyro_lvm.objectives.IWAE`; its mean lies between theirs.

    References:
        Rainforth et al. (2018), *Tighter variational bounds are not necessarily better*,
        arXiv:1802.04537, section 4.

    Args:
        num_particles: draws per datum, K >= 1.
        gradient: "reparam", "dreg", "score" or "vimco"; "stl" at K = 1 only.
        elbo_weight: :math:`\beta` of the paper, from 0 to 1.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        The log-weights 0 and log 3 have mean 0.5493; the log of the mean weight is 0.6931.

        >>> log_weights = torch.tensor([[1.0], [3.0]]).log()  # (K=2, batch=1)
        >>> CIWAE(num_particles=2, elbo_weight=0.5).bound_per_datum(log_weights)
        tensor([0.6212])
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        elbo_weight: float = 0.5,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        if not is_number(elbo_weight) or not 0.0 <= elbo_weight <= 1.0:
            hint = "Pass elbo_weight=0.5."
            found = repr(elbo_weight)
            raise ProgramError(explain("elbo_weight", "a number from 0 to 1", found, hint))
        self.elbo_weight = elbo_weight
        super().__init__(
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        own = self.elbo_weight
        return own * log_weights.mean(0) + (1.0 - own) * log_mean_exp(log_weights)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        share = (1.0 - self.elbo_weight) * torch.softmax(log_weights, 0)
        slope = self.elbo_weight / log_weights.shape[0] + share
        tiny = torch.finfo(slope.dtype).tiny
        return share * (1.0 - torch.softmax(log_weights, 0)) / slope.clamp_min(tiny)
