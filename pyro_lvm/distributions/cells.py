"""Cells of a table: real numbers and class numbers, element by element."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

__all__ = ["Cells"]

_NO_SIZE = Size()


class Cells(TorchDistribution):
    """Elements of two kinds: real ones, and numbers of classes, as floating point.

    ``rsample`` has a path derivative at the real elements only; those of classes need a score.

    Args:
        reals: distribution of the real elements, batch ``(*,)``.
        classes: ``Categorical`` of the others, batch ``(*,)``.
        is_class: bool ``(*,)``, which are which.

    Example:
        >>> import pyro.distributions as dist
        >>> which = torch.tensor([True, False])
        >>> cells = Cells(dist.Normal(torch.zeros(2), 1.0),
        ...               dist.Categorical(torch.tensor([0.0, 0.0, 1.0])).expand((2,)), which)
        >>> cells.log_prob(torch.tensor([2.0, 0.5])).exp()
        tensor([1.0000, 0.3521])
        >>> cells.sample()[0]
        tensor(2.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real
    has_rsample = True

    def __init__(
        self, reals: TorchDistribution, classes: TorchDistribution, is_class: Tensor
    ) -> None:
        self.reals, self.classes, self.is_class = reals, classes, is_class
        super().__init__(is_class.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Cells:
        shape = Size(batch_shape)
        reals, classes = self.reals.expand(shape), self.classes.expand(shape)
        return Cells(reals, classes, self.is_class.expand(shape))

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        numbers = self.reals.rsample(sample_shape)
        return torch.where(self.is_class, self.classes.sample(sample_shape).to(numbers), numbers)

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch,)
        """Log-density of real elements, log-probability of the others, nats."""
        number = torch.where(self.is_class, value, 0.0).long()
        real = torch.where(self.is_class, 0.0, value)
        return torch.where(self.is_class, self.classes.log_prob(number), self.reals.log_prob(real))
