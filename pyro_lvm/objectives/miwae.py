"""The mean of several independent importance-weighted bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm import gradients
from pyro_lvm.annealing import Schedule
from pyro_lvm.objective import Objective
from pyro_lvm.objectives.groups import check_groups, grouped
from pyro_lvm.weights import log_mean_exp

__all__ = ["MIWAE"]


class MIWAE(Objective):
    r"""Mean of M importance-weighted bounds of L = K / M draws each, in nats per datum.

    .. math:: \frac1M \sum_{m=1}^M \log \tfrac1L \sum_{l=1}^L w_{m,l},
        \qquad w_{m,l} = p(x, z_{m,l}) / q(z_{m,l} \mid x)

    The bound is that of L draws; M lowers the noise of its gradient. For one budget K it
    trades a tight bound, good for the model, against signal in the guide's gradient.
    ``num_groups=1`` is :class:`~pyro_lvm.objectives.IWAE`, K is the ELBO.

    References:
        Rainforth et al. (2018), *Tighter variational bounds are not necessarily better*,
        arXiv:1802.04537, section 4.

    Args:
        num_particles: draws per datum in all, K = M L.
        gradient: "reparam", "dreg", "score", "vimco" or "ovis"; "stl" at K = 1 only.
        num_groups: M, which divides K.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range, or ``num_groups`` does not divide K.

    Example:
        Means 2 and 4 of two pairs of weights; the mean of their logs is log(8) / 2.

        >>> log_weights = torch.tensor([[1.0], [3.0], [3.0], [5.0]]).log()  # (K=4, batch=1)
        >>> MIWAE(num_particles=4, num_groups=2).bound_per_datum(log_weights)
        tensor([1.0397])
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        num_groups: int = 1,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        self.num_groups = check_groups(num_groups, num_particles)
        super().__init__(
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(grouped(log_weights, self.num_groups)).mean(0)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        share = torch.softmax(grouped(log_weights, self.num_groups), 0)
        return 1.0 - share.transpose(0, 1).flatten(0, 1)

    def bound_of_others(self, log_weights: Tensor) -> Tensor:
        """The mean of all groups' bounds, the k-th draw's by the others of its group."""
        groups = grouped(log_weights, self.num_groups)  # (L, M, *batch)
        if len(groups) == 1:  # the ELBO: a group has no others, so other groups stand in
            return gradients.bound_of_others(lambda weights: weights.mean(0), log_weights)
        own = log_mean_exp(groups)
        change = gradients.bound_of_others(log_mean_exp, groups) - own
        return (own.mean(0) + change / self.num_groups).transpose(0, 1).flatten(0, 1)
