"""Convolutions down a picture's scales and, with what each remembers, up again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import elu, interpolate

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn.arguments import check_size
from pyro_lvm.nn.networks import widen
from pyro_lvm.nn.skips import SkipEncoder

__all__ = ["UNet", "UNetDecoder"]


class UNet(SkipEncoder):
    """Square pictures down their scales; :meth:`mirrored` goes up again, with skips at each.

    The first level has the picture's own width, every further one half of it, rounded up.

    References:
        Ronneberger, Fischer, Brox (2015), *U-Net*, arXiv:1505.04597.
        Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
        arXiv:1806.02382, for the skips from a prior network to a generator.

    Args:
        width: pixels in a row of the picture.
        in_channels: channels of the picture.
        channels: of each level.

    Raises:
        ProgramError: a size below 1.
        DataError: pictures of another size.

    Example:
        >>> import torch
        >>> network, x = UNet(8, in_channels=2, channels=(4, 6)), torch.zeros(5, 2 * 64)
        >>> network.out_features, [tuple(h.shape[1:]) for h in network.memory(x)]
        (96, [(2, 8, 8), (4, 8, 8), (6, 4, 4)])
        >>> network.mirrored(3, 64)(torch.zeros(7, 5, 3), network.memory(x)).shape
        torch.Size([7, 5, 64])
    """

    def __init__(
        self, width: int, in_channels: int = 1, channels: Sequence[int] = (32, 64)
    ) -> None:
        super().__init__()
        counts = [check_size("in_channels", in_channels)]
        counts += [check_size("channels", count) for count in channels]
        strides = [1] + [2] * (len(counts) - 2)
        pairs = list(pairwise(counts))
        self.down = nn.ModuleList(
            nn.Conv2d(above, below, 3, stride, padding=1)
            for (above, below), stride in zip(pairs, strides, strict=True)
        )
        self.same = nn.ModuleList(nn.Conv2d(count, count, 3, padding=1) for count in counts[1:])
        widths = [check_size("width", width)] * 2
        widths += [-(-width // 2**level) for level in range(1, len(pairs))]
        self.shapes = list(zip(counts, widths, strict=True))  # channels and width of the memory
        self.out_features = counts[-1] * widths[-1] ** 2

    def memory(self, x: Tensor) -> list[Tensor]:
        channels, width = self.shapes[0]
        if x[0].numel() != channels * width**2:
            found, hint = f"shape {tuple(x.shape)}", "Check width and in_channels."
            expected = f"pictures of {channels} x {width} x {width} numbers"
            raise DataError(explain("x", expected, found, hint))
        activations = [x.reshape(len(x), channels, width, width)]
        for down, same in zip(self.down, self.same, strict=True):
            h = elu(down(activations[-1]))
            activations.append(h + elu(same(h)))
        return activations

    def mirrored(self, in_features: int, out_features: int) -> UNetDecoder:
        return UNetDecoder(in_features, out_features, self.shapes)


class UNetDecoder(nn.Module):
    """From a vector up the scales of a picture, with what a :class:`UNet` remembers of each.

    What is remembered goes through its convolutions once a datum, whatever left dims the
    vectors have.

    Args:
        in_features: size of the vector.
        out_features: numbers in the output: some channels of the picture's size, flattened.
        shapes: channels and width of all that is remembered, the picture first.

    Raises:
        ProgramError: a size below 1, an output that is no whole number of channels.
    """

    def __init__(
        self, in_features: int, out_features: int, shapes: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__()
        (first, width), *inner = shapes
        counts, widths = zip(*reversed(inner), strict=True)
        check_size("in_features", in_features)
        self.start = (counts[0], widths[0], widths[0])
        self.entry = nn.Linear(in_features, counts[0] * widths[0] ** 2)
        self.blocks = _convolutions(counts, counts)
        self.skips = _convolutions(counts, counts, bias=False)
        self.up = _convolutions(counts[:-1], counts[1:])
        out_channels = _whole_channels(out_features, width)
        self.head = nn.Conv2d(counts[-1], out_channels, 3, padding=1)
        self.head_skip = nn.Conv2d(first, out_channels, 3, padding=1, bias=False)

    def forward(self, z: Tensor, memory: Sequence[Tensor]) -> Tensor:
        """``(*, B, in_features)`` and memory ``(B, c, w, w)`` each to ``(*, B, out_features)``."""
        first, *inner = memory
        h = self.entry(z).unflatten(-1, self.start)
        for level, remembered in enumerate(reversed(inner)):
            if level:
                h = elu(_over(self.up[level - 1], _resized(h, remembered.shape[-1])))
            h = h + elu(_over(self.blocks[level], h) + self.skips[level](remembered))
        return widen((_over(self.head, h) + self.head_skip(first)).flatten(-3))


def _convolutions(
    counts_in: Sequence[int], counts_out: Sequence[int], bias: bool = True
) -> nn.ModuleList:
    pairs = zip(counts_in, counts_out, strict=True)
    return nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in pairs)


def _over(convolution: nn.Module, h: Tensor) -> Tensor:
    """``(*, c, w, w)`` with any left dims."""
    after: Tensor = convolution(h.flatten(0, -4))
    return after.reshape(*h.shape[:-3], *after.shape[1:])


def _resized(h: Tensor, width: int) -> Tensor:
    after = interpolate(h.flatten(0, -4), size=(width, width))
    return after.reshape(*h.shape[:-3], *after.shape[1:])


def _whole_channels(out_features: int, width: int) -> int:
    channels, rest = divmod(check_size("out_features", out_features), width**2)
    if rest:
        hint = "Take a likelihood of as many columns as the picture has numbers."
        expected = f"a multiple of {width} x {width}"
        raise ProgramError(explain("out_features", expected, str(out_features), hint))
    return channels
