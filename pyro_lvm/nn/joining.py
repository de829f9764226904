"""Vectors side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["joined"]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Vectors ``(*, n)`` each, any left dims that broadcast, as one ``(*, sum of n)``.

    Example:
        >>> joined([torch.zeros(5, 2), torch.ones(7, 5, 1)]).shape
        torch.Size([7, 5, 3])
    """
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)
