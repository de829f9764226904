"""Arrays of equal length, in memory or on disk, that are read by lists of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["Array", "Arrays", "Rows", "checksum", "named", "read", "slices"]

Array = Any
"""A tensor, or a ``numpy.memmap``, which stays on disk."""

Arrays = Any
"""An array, or a tuple or dict of them."""

_LOOKED_AT = 64  # rows of a checksum
_PART = 2**24  # bytes of a memory-mapped array to look at in one go


class Rows(Dataset[Any]):
    """Arrays, or some rows of them; a list of indices gives a batch of tensors, as structured.

    Args:
        arrays: with one row per datum.
        chosen: rows to keep, in that order, ``(N,)``; all of them if left out.
    """

    def __init__(self, arrays: Arrays, chosen: Tensor | None = None) -> None:
        self.arrays = arrays
        self.chosen = chosen

    def __len__(self) -> int:
        kept = next(iter(named(self.arrays).values())) if self.chosen is None else self.chosen
        return len(kept)

    def __getitem__(self, index: int) -> Any:
        return _map(lambda batch: batch[0], self.__getitems__([index]))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        rows = torch.as_tensor(indices, device="cpu")
        return _map(partial(read, rows=self._chosen(rows)), self.arrays)

    def some(self, indices: Sequence[int]) -> Rows:
        """Some of these rows; nothing is copied."""
        return Rows(self.arrays, self._chosen(torch.as_tensor(indices, device="cpu")))

    def _chosen(self, rows: Tensor) -> Tensor:
        return rows if self.chosen is None else self.chosen[rows]


def checksum(rows: Rows) -> int:
    """Of rows spread over all of them: others, or others in an order, have another one.

    Example:
        >>> x = torch.linspace(0.0, 1.0, 100)
        >>> checksum(Rows(x)) == checksum(Rows(x.clone())), checksum(Rows(x)) == checksum(Rows(-x))
        (True, False)
    """
    places = torch.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).long()
    found = 0
    for array in named(rows.__getitems__(places.tolist())).values():
        found = crc32(array.contiguous().view(torch.uint8).cpu().numpy(), found)
    return found


def named(arrays: Arrays, name: str = "data") -> dict[str, Array]:
    """The arrays by name, for messages."""
    if isinstance(arrays, Tensor | np.memmap):
        return {name: arrays}
    pairs = arrays.items() if isinstance(arrays, dict) else enumerate(arrays)
    return {f"{name}[{key!r}]": value for key, value in pairs}


def slices(array: Array) -> Iterator[slice]:
    """All rows: those of a tensor at once, of an array on disk as many as fit the memory."""
    in_memory = isinstance(array, Tensor)
    size = len(array) if in_memory else max(1, _PART * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), size):
        yield slice(start, min(start + size, len(array)))


def read(array: Array, rows: Tensor | slice) -> Tensor:
    """Some rows, in memory."""
    if isinstance(array, Tensor):
        return array[rows.to(array.device) if isinstance(rows, Tensor) else rows]
    return torch.from_numpy(np.array(array[rows.numpy() if isinstance(rows, Tensor) else rows]))


def _map(function: Callable[[Any], Tensor], arrays: Arrays) -> Any:
    if isinstance(arrays, Tensor | np.memmap):
        return function(arrays)
    if isinstance(arrays, dict):
        return {key: function(value) for key, value in arrays.items()}
    return tuple(function(value) for value in arrays)
