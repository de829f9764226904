"""Networks that remember: an encoder's activations reach the decoder that mirrors it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pyro_lvm.nn.arguments import check_size
from pyro_lvm.nn.networks import widen

__all__ = ["ResidualMLP", "SkipEncoder", "SkipMLP"]


class SkipEncoder(nn.Module, ABC):
    """Base: a network whose activations another one, its mirror, reads on the way back.

    Activations are passed as tensors, so nothing is kept between calls. The mirror takes them
    once a datum, and its own input with any left dims.

    Attributes:
        out_features: size of the output.

    Example:
        One layer, of which the mirror sees input and output.

        >>> class OneLayer(SkipEncoder):
        ...     def __init__(self, in_features, out_features):
        ...         super().__init__()
        ...         self.out_features = out_features
        ...         self.layer = nn.Linear(in_features, out_features)
        ...     def memory(self, x):
        ...         return [x, self.layer(x).relu()]
        ...     def mirrored(self, in_features, out_features):
        ...         remembered = [self.layer.in_features, self.out_features]
        ...         return SkipMLP(in_features, out_features, remembered)
        >>> import torch
        >>> encoder, x = OneLayer(6, 9), torch.zeros(5, 6)
        >>> encoder.mirrored(3, 4)(torch.zeros(5, 3), encoder.memory(x)).shape
        torch.Size([5, 4])
    """

    out_features: int

    @abstractmethod
    def memory(self, x: Tensor) -> list[Tensor]:
        """The input, then every activation, each ``(B, ...)``; the last is the output."""

    @abstractmethod
    def mirrored(self, in_features: int, out_features: int) -> nn.Module:
        """A network, called with ``z`` ``(*, B, in_features)`` and what :meth:`memory` gave.

        Returns:
            A module with outputs of shape ``(*, B, out_features)``.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, out_features)``, float32 or wider."""
        return widen(self.memory(x)[-1].flatten(1))


class ResidualMLP(SkipEncoder):
    r"""Fully connected network of residual blocks, :math:`h + \mathrm{LeakyReLU}(Wh + b)`.

    References:
        Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
        arXiv:1806.02382, for tables.

    Args:
        in_features: size of the last dim of the input.
        width: size of every layer, and of the output.
        depth: number of blocks.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> import torch
        >>> network, x = ResidualMLP(6, width=9, depth=2), torch.zeros(5, 6)
        >>> network(x).shape, [h.shape[1] for h in network.memory(x)]
        (torch.Size([5, 9]), [6, 9, 9, 9])
        >>> network.mirrored(3, 4)(torch.zeros(7, 5, 3), network.memory(x)).shape
        torch.Size([7, 5, 4])
    """

    def __init__(self, in_features: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        size = check_size("width", width)
        self.in_features = check_size("in_features", in_features)
        self.out_features = size
        self.entry = nn.Linear(in_features, size)
        self.blocks = _layers([size] * check_size("depth", depth), size)

    def memory(self, x: Tensor) -> list[Tensor]:
        activations = [x, self.entry(x)]
        for block in self.blocks:
            h = activations[-1]
            activations.append(h + leaky_relu(block(h)))
        return activations

    def mirrored(self, in_features: int, out_features: int) -> SkipMLP:
        remembered = [self.in_features] + [self.out_features] * (len(self.blocks) + 1)
        return SkipMLP(in_features, out_features, remembered)


class SkipMLP(nn.Module):
    r"""Residual network that reads what another remembers, last activation first.

    .. math:: h \leftarrow h + \mathrm{LeakyReLU}(W h + V m + b)

    in each block, and the input of the other network beside the last h. :math:`Vm` is computed
    once a datum, whatever left dims h has.

    Args:
        in_features: size of the last dim of the input.
        out_features: size of the last dim of the output.
        memory_features: sizes of what the other remembers: its input, then its activations, the
            last of which is the width here.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> import torch
        >>> network, memory = SkipMLP(3, 4, (6, 9, 9)), [torch.zeros(5, m) for m in (6, 9, 9)]
        >>> network(torch.zeros(7, 5, 3), memory).shape
        torch.Size([7, 5, 4])
    """

    def __init__(self, in_features: int, out_features: int, memory_features: Sequence[int]) -> None:
        super().__init__()
        first, *inner = memory_features
        width = inner[-1]
        self.entry = nn.Linear(check_size("in_features", in_features), width)
        self.blocks = _layers([width] * len(inner), width)
        self.skips = _layers(reversed(inner), width, bias=False)
        self.head = nn.Linear(width, check_size("out_features", out_features))
        self.head_skip = nn.Linear(first, out_features, bias=False)

    def forward(self, z: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """``(*, B, in_features)`` and memory ``(B, m)`` each to ``(*, B, out_features)``."""
        first, *inner = memory
        h = self.entry(z)
        for block, skip, remembered in zip(self.blocks, self.skips, reversed(inner), strict=True):
            h = h + leaky_relu(block(h) + skip(remembered))
        return widen(self.head(h) + self.head_skip(first))


def _layers(sizes: Iterable[int], width: int, bias: bool = True) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(size, width, bias=bias) for size in sizes)
