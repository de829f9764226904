"""A row of which some entries are known: those are certain, the others as in another row."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from pyro_lvm.scoring import log_prob

__all__ = ["PartlyKnown"]

_NO_SIZE = Size()


class PartlyKnown(TorchDistribution):
    """Independent entries, some known: drawn as they are, with log-probability 0.

    The data of a conditional model, whole: what is conditioned on beside what is predicted.

    Args:
        base_dist: univariate distributions of all entries, of event shape ``()``.
        value: the known entries, anything elsewhere; broadcastable to the batch shape.
        known: bool, of the shape of ``value``.

    Example:
        >>> import pyro.distributions as dist
        >>> known = torch.tensor([True, False])
        >>> row = PartlyKnown(dist.Normal(torch.zeros(2), 1.0), torch.tensor([5.0, 0.0]), known)
        >>> row.sample()[0], row.log_prob(torch.tensor([5.0, 0.0]))
        (tensor(5.), tensor([ 0.0000, -0.9189]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, base_dist: TorchDistribution, value: Tensor, known: Tensor) -> None:
        self.base_dist, self.value, self.known = base_dist, value, known
        super().__init__(base_dist.batch_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Of the other row."""
        return self.base_dist.support

    @property
    def mean(self) -> Tensor:
        return self._with(self.value, self.base_dist.mean)

    @property
    def variance(self) -> Tensor:
        return self._with(torch.zeros_like(self.value), self.base_dist.variance)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PartlyKnown:
        return PartlyKnown(self.base_dist.expand(batch_shape), self.value, self.known)

    def sample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        return self._with(self.value, self.base_dist.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch,)
        """Of each entry, in nats; known ones are taken to have the known values."""
        scored = log_prob(self.base_dist, value)
        return self._with(torch.zeros_like(scored), scored)

    def _with(self, of_known: Tensor, of_others: Tensor) -> Tensor:
        return torch.where(self.known, of_known.to(of_others), of_others)
