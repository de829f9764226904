"""Columns of class numbers, for data that hold them beside other numbers."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.distributions.likelihoods import Likelihood
from pyro_lvm.nn import check_size

__all__ = ["CategoricalLikelihood", "ClassNumber"]

_NO_SIZE = torch.Size()


class CategoricalLikelihood(Likelihood):
    """Class numbers 0 to C - 1, in any dtype; the outputs are C logits for each column.

    Args:
        features: number of columns, D.
        num_classes: C, of every column.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> likelihood = CategoricalLikelihood(2, num_classes=3)
        >>> likelihood(torch.zeros(5, likelihood.num_outputs)).batch_shape
        torch.Size([5, 2])
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, check_size("num_classes", num_classes))

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        return ClassNumber(logits=output.unflatten(-1, (self.features, -1)))

    def start(self, mean: Tensor) -> Tensor:
        """All classes alike: their frequencies do not follow from a mean."""
        return mean.new_zeros(self.num_outputs)


class ClassNumber(dist.Categorical):
    """Categorical whose draws are numbers in a row of data: floating point, with a mean."""

    @property
    def mean(self) -> Tensor:
        return self.probs @ self._numbers

    @property
    def variance(self) -> Tensor:
        return self.probs @ self._numbers**2 - self.mean**2

    def sample(self, sample_shape: Any = _NO_SIZE) -> Tensor:
        drawn: Tensor = dist.Categorical.sample(self, sample_shape)
        return drawn.to(self.logits.dtype)

    @property
    def _numbers(self) -> Tensor:  # (C,)
        return torch.arange(self.logits.shape[-1]).to(self.logits)
