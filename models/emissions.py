"""Distributions of the data given a discrete state: a table with a row for each state."""

from __future__ import annotations

from math import expm1, log

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.nn import check_size, diagonal_normal, positive_scale

__all__ = ["CategoricalEmission", "GaussianEmission"]

_UNIT = log(expm1(1.0))  # softplus of it is 1


class GaussianEmission(nn.Module):
    """A diagonal Normal for each state, with ``loc`` and ``scale`` of shape ``(S, D)``.

    Args:
        num_states: S.
        in_features: size of a datum, D.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> emission = GaussianEmission(num_states=3, in_features=2)
        >>> emission(torch.tensor([0, 2, 2, 1])).batch_shape
        torch.Size([4])
    """

    def __init__(self, num_states: int, in_features: int) -> None:
        super().__init__()
        self.row_shape = (check_size("in_features", in_features),)
        self.loc = nn.Parameter(torch.randn(num_states, in_features))
        self.raw_scale = nn.Parameter(torch.full((num_states, in_features), _UNIT))

    @property
    def scale(self) -> Tensor:
        """Standard deviations, ``(S, D)``."""
        return positive_scale(self.raw_scale)

    def forward(self, state: Tensor) -> dist.TorchDistribution:
        """Of integer ``state`` ``(*,)``: batch ``(*,)``, event ``(D,)``."""
        return diagonal_normal(self.loc[state], self.scale[state])


class CategoricalEmission(nn.Module):
    """A distribution of symbols 0 to V - 1 for each state, with ``logits`` ``(S, V)``.

    Args:
        num_states: S.
        num_symbols: V.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> emission = CategoricalEmission(num_states=3, num_symbols=5)
        >>> emission(torch.tensor([0, 2])).log_prob(torch.tensor([[4.0], [1.0]])).shape
        torch.Size([2, 2])
    """

    def __init__(self, num_states: int, num_symbols: int) -> None:
        super().__init__()
        self.row_shape = ()
        self.logits = nn.Parameter(torch.randn(num_states, check_size("num_symbols", num_symbols)))

    def forward(self, state: Tensor) -> dist.TorchDistribution:
        """Of integer ``state`` ``(*,)``: batch ``(*,)``, event ``()``."""
        return dist.Categorical(logits=self.logits[state])
