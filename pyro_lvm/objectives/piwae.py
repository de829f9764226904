"""The partially importance-weighted autoencoder: one bound for the model, one for the guide."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_lvm.objectives.groups import check_groups, grouped
from pyro_lvm.weighted import Coefficients, WeightedObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["PIWAE"]


class PIWAE(WeightedObjective):
    r"""Importance-weighted bound of all K draws for the model, of M groups for the guide.

    .. math:: \theta: \log \tfrac1K \sum_{m,l} w_{m,l}, \qquad
        \phi: \tfrac1M \sum_m \log \tfrac1L \sum_l w_{m,l}, \qquad K = M L

    One set of draws and one backward pass serve both. The bound that is reported is the
    model's, in nats per datum, that of :class:`~pyro_lvm.objectives.IWAE`; the guide's
    gradient is that of :class:`~pyro_lvm.objectives.MIWAE`.

    References:
        Rainforth et al. (2018), *Tighter variational bounds are not necessarily better*,
        arXiv:1802.04537, section 4.

    Args:
        num_particles: draws per datum in all, K = M L >= 2.
        gradient: of the guide, "reparam" or "dreg".
        num_groups: M, which divides K.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range, or ``num_groups`` does not divide K.

    Example:
        The bound is the log of the mean weight, 3, of both groups.

        >>> log_weights = torch.tensor([[1.0], [3.0], [3.0], [5.0]]).log()  # (K=4, batch=1)
        >>> PIWAE(num_particles=4, num_groups=2).bound_per_datum(log_weights)
        tensor([1.0986])
    """

    takes: ClassVar[tuple[str, ...]] = ("reparam", "dreg")

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "reparam",
        *,
        num_groups: int = 1,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        self.num_groups = check_groups(num_groups, num_particles)
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights)

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        model = torch.softmax(log_weights, 0)
        share = torch.softmax(grouped(log_weights, self.num_groups), 0)
        share = share.transpose(0, 1).flatten(0, 1)
        guide = share / self.num_groups
        if self.gradient == "dreg":
            return Coefficients(model, path=guide * share)
        return Coefficients(model, path=guide, score=-guide)
