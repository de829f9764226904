"""The importance-weighted bound."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from pyro_lvm.objective import Objective
from pyro_lvm.weights import logsumexp_of_others

__all__ = ["IWAE"]


class IWAE(Objective):
    r"""Importance-weighted bound, in nats per datum: the log of the mean weight.

    .. math:: \log \tfrac1K \sum_k w_k, \qquad w_k = p(x, z_k) / q(z_k \mid x)

    Its mean rises with K to :math:`\log p(x)`. A larger K trains the model better and the
    guide's plain gradient worse (signal to noise falls as :math:`K^{-1/2}`):
    ``gradient="dreg"`` restores it. ``"stl"`` is refused for K > 1, where it is biased.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, eq. 8.
        Rainforth et al. (2018), *Tighter variational bounds are not necessarily better*,
        arXiv:1802.04537.

    Args:
        num_particles: draws per datum, K >= 1.
        gradient: "reparam", "dreg", "score" or "vimco"; "stl" at K = 1 only.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range, or ``gradient="stl"`` with K > 1.

    Example:
        Weights 1/6, 1/3, 1/2 have mean 1/3.

        >>> log_weights = torch.tensor([[1 / 6], [1 / 3], [1 / 2]]).log()  # (K=3, batch=1)
        >>> IWAE(num_particles=3).bound_per_datum(log_weights)
        tensor([-1.0986])
    """

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return torch.logsumexp(log_weights, 0) - log(log_weights.shape[0])

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return 1.0 - torch.softmax(log_weights, 0)

    def bound_of_others(self, log_weights: Tensor) -> Tensor:
        others = len(log_weights) - 1
        return logsumexp_of_others(log_weights) - log(others) if others else 0.0 * log_weights

    def bound_with(self, log_weights: Tensor, instead: Tensor) -> Tensor:
        others = logsumexp_of_others(log_weights)
        return torch.logaddexp(others, instead) - log(len(log_weights))
