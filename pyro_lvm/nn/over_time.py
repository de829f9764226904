"""Convolutions over time for any left dims."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import check_size

__all__ = ["OverTime", "check_odd"]


class OverTime(nn.Module):
    """Convolution over the dim before the last, ``(*, T, in) -> (*, T, out)``, zeros beyond.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        width: of the filter, steps, odd.

    Raises:
        ProgramError: a size below 1, an even width.

    Example:
        >>> import torch
        >>> OverTime(3, 4, width=5)(torch.zeros(7, 2, 10, 3)).shape
        torch.Size([7, 2, 10, 4])
    """

    def __init__(self, in_features: int, out_features: int, width: int) -> None:
        super().__init__()
        padding = check_odd("width", width) // 2
        self.convolution = nn.Conv1d(in_features, out_features, width, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(prod(x.shape[:-2]), *x.shape[-2:])
        after: Tensor = self.convolution(rows.mT).mT
        return after.reshape(*x.shape[:-1], -1)


def check_odd(name: str, width: int) -> int:
    """``width`` if it is an odd number of steps: the filter then has a middle.

    Raises:
        ProgramError: it is not.
    """
    if not check_size(name, width) % 2:
        raise ProgramError(explain(name, "an odd number", repr(width), f"Pass {width + 1}."))
    return width
