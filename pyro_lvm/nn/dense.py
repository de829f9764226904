"""Hidden layers of leaky rectifiers, with or without batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_lvm.nn.networks import MLP, widen

__all__ = ["BatchNorm", "Dense"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of ``(*, features)``: statistics over all left dims together.

    In training it ties the data of a batch to each other, and the particles too: bounds per
    datum are then those of the batch. In evaluation mode the running statistics are used, and
    every datum has a bound of its own.

    References:
        Ioffe, Szegedy (2015), *Batch normalization*, arXiv:1502.03167.

    Example:
        >>> import torch
        >>> x = BatchNorm(4)(torch.randn(3, 5, 4))
        >>> x.shape, bool(x.mean((0, 1)).abs().max() < 1e-6)
        (torch.Size([3, 5, 4]), True)
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).reshape(x.shape)


class Dense(nn.Module):
    """Hidden layers ``(*, in_features) -> (*, out_features)``, any left dims.

    Args:
        in_features: size of the last dim of the input.
        hidden: sizes of the layers; none at all makes it the identity.
        batch_norm: normalise each layer over the batch, before its leaky rectifier.

    Attributes:
        out_features: size of the last layer.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> import torch
        >>> dense = Dense(64, (32, 16), batch_norm=True)
        >>> dense(torch.randn(5, 3, 64)).shape, dense.out_features
        (torch.Size([5, 3, 16]), 16)
    """

    def __init__(self, in_features: int, hidden: Sequence[int], *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for below, above in pairwise([in_features, *hidden]):
            norm = [BatchNorm(above)] if batch_norm else []
            layers += [MLP(below, above, hidden=()), *norm, nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers)
        self.out_features = [in_features, *hidden][-1]

    def forward(self, x: Tensor) -> Tensor:
        return widen(self.layers(x))
