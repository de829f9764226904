"""Normal distributions from one unconstrained vector a datum: three kinds of covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import vec_to_tril_matrix

from pyro_lvm.nn import diagonal_normal, positive_scale

__all__ = ["COVARIANCES", "Covariance"]


class Covariance(NamedTuple):
    """How many numbers a Normal of ``size`` dims takes, and the Normal from them.

    Attributes:
        num_outputs: from ``(size, rank)`` to the length of ``raw``.
        normal: from ``raw`` ``(*, num_outputs)`` and ``(size, rank)`` to a distribution of
            batch shape ``(*,)`` and event shape ``(size,)``.
    """

    num_outputs: Callable[[int, int], int]
    normal: Callable[[Tensor, int, int], dist.TorchDistribution]


def _diagonal(raw: Tensor, size: int, rank: int) -> dist.TorchDistribution:
    loc, scale = raw.split([size, size], -1)
    return diagonal_normal(loc, positive_scale(scale))


def _low_rank(raw: Tensor, size: int, rank: int) -> dist.TorchDistribution:
    loc, scale, factor = raw.split([size, size, size * rank], -1)
    factor = factor.unflatten(-1, (size, rank)) / rank**0.5
    return dist.LowRankMultivariateNormal(loc, factor, positive_scale(scale) ** 2)


def _full(raw: Tensor, size: int, rank: int) -> dist.TorchDistribution:
    loc, scale, below = raw.split([size, size, size * (size - 1) // 2], -1)
    tril = vec_to_tril_matrix(below, diag=-1) + torch.diag_embed(positive_scale(scale))
    return dist.MultivariateNormal(loc, scale_tril=tril)


COVARIANCES = {
    "diagonal": Covariance(lambda size, rank: 2 * size, _diagonal),
    "low_rank": Covariance(lambda size, rank: (2 + rank) * size, _low_rank),
    "full": Covariance(lambda size, rank: size * (size + 3) // 2, _full),
}
"""By name: independent dims; a diagonal plus ``rank`` factors; any covariance."""
