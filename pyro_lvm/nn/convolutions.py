"""Convolutional encoder of square pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn.arguments import check_size

__all__ = ["ConvEncoder"]


class ConvEncoder(nn.Module):
    """Square pictures to features, by convolutions of stride 2.

    Any guide takes it as ``encoder=``, with ``encoder_features=encoder.out_features``.

    Args:
        width: pixels in a row of the picture.
        in_channels: channels of the picture.
        channels: of each layer; every layer halves the picture's width, rounded up.
        activation: makes the module after each layer.

    Raises:
        ProgramError: a size below 1.
        DataError: pictures of another size.

    Example:
        >>> import torch
        >>> encoder = ConvEncoder(8, channels=(4, 6))
        >>> encoder.out_features, encoder(torch.zeros(5, 64)).shape
        (24, torch.Size([5, 24]))
    """

    def __init__(
        self,
        width: int,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64),
        activation: Callable[[], nn.Module] = nn.ELU,
    ) -> None:
        super().__init__()
        width = check_size("width", width)
        counts = [check_size("in_channels", in_channels)]
        counts += [check_size("channels", count) for count in channels]
        self.shape = (counts[0], width, width)
        layers: list[nn.Module] = []
        for count_in, count_out in pairwise(counts):
            layers += [nn.Conv2d(count_in, count_out, 3, stride=2, padding=1), activation()]
            width = (width + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = counts[-1] * width**2

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels * width * width)``, or unflattened, to ``(B, out_features)``."""
        channels, width, _ = self.shape
        if x[0].numel() != channels * width**2:
            raise DataError(
                explain(
                    "x",
                    f"pictures of {channels} x {width} x {width} numbers",
                    f"shape {tuple(x.shape)}",
                    "Check width and in_channels.",
                )
            )
        features: Tensor = self.layers(x.reshape(len(x), *self.shape))
        return features
