"""Parts of a recording: cells for training and for the test, and windows of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.traces import Traces
from pyro_lvm.errors import DataError, explain

__all__ = ["CellSplits", "Snippets", "snippets", "split_cells"]


class CellSplits(NamedTuple):
    """Different cells for training, validation and test.

    Example:
        >>> parts = split_cells(Traces(torch.randn(6, 10), rate=30.0))
        >>> {name: len(cells) for name, cells in parts._asdict().items()}
        {'train': 3, 'validation': 1, 'test': 2}
    """

    train: Traces
    validation: Traces
    test: Traces


def split_cells(
    traces: Traces, *, validation: float = 0.15, test: float = 0.3, seed: int = 0
) -> CellSplits:
    """Whole cells to each part: what is said of the test cells is said of new recordings.

    Args:
        traces: the recording; the same cells in the same order always give the same parts.
        validation: share of the cells, rounded, at least one.
        test: share of the cells, rounded, at least one.
        seed: of the shuffle.

    Raises:
        DataError: too few cells for three parts.

    Example:
        >>> parts = split_cells(Traces(torch.randn(6, 10), rate=30.0))
        >>> [list(part.names) for part in parts]
        [['cell5', 'cell2', 'cell1'], ['cell3'], ['cell0', 'cell4']]
    """
    cells = len(traces)
    counts = [max(1, round(share * cells)) for share in (validation, test)]
    if sum(counts) >= cells:
        found = f"{cells}, of which {sum(counts)} are held out"
        hint = "Hold out a smaller share, or pool recordings."
        raise DataError(explain("cells", "enough for three parts", found, hint))
    order = np.random.RandomState(seed).permutation(cells).tolist()
    held, tested = counts[0] + counts[1], counts[1]
    parts = order[:-held], order[-held:-tested], order[-tested:]
    return CellSplits(*(traces.select(part) for part in parts))


class Snippets(NamedTuple):
    """Windows of traces, to train on.

    Attributes:
        x: ``(snippets, length)``, NaN = unobserved.
        cell: ``(snippets,)`` int64, which cell a snippet is of.
        start: ``(snippets,)`` int64, its first frame.

    Example:
        >>> windows = snippets(Traces(torch.arange(8.0).reshape(2, 4), rate=1.0), 2)
        >>> windows.x[windows.cell == 1]
        tensor([[4., 5.],
                [6., 7.]])
    """

    x: Tensor
    cell: Tensor
    start: Tensor


def snippets(traces: Traces, length: int, *, stride: int | None = None) -> Snippets:
    """Windows of ``length`` frames of every cell, at least half of them observed.

    Args:
        traces: the recording.
        length: frames of a window.
        stride: frames from one window to the next, by default ``length``. The last window
            ends with the recording, so no frame is left out.

    Raises:
        DataError: a window longer than the recording, or none that is half observed.

    Example:
        >>> parts = snippets(Traces(torch.arange(10.0).reshape(2, 5), rate=1.0), 3)
        >>> parts.start.tolist(), parts.cell.tolist()
        ([0, 2, 0, 2], [0, 0, 1, 1])
        >>> parts.x[1]
        tensor([2., 3., 4.])
    """
    frames = traces.x.shape[1]
    if not 0 < length <= frames:
        hint = "Take shorter windows."
        raise DataError(explain("length", f"from 1 to {frames} frames", str(length), hint))
    starts = torch.tensor(sorted({*range(0, frames - length, stride or length), frames - length}))
    windows = traces.x.unfold(1, length, 1)[:, starts.to(traces.x.device)]
    kept = windows.isnan().sum(-1) <= length / 2  # (cells, windows)
    if not kept.any():
        hint = "Take shorter windows."
        raise DataError(explain("snippets", "windows half observed", "none", hint))
    cell, window = kept.nonzero(as_tuple=True)
    return Snippets(windows[kept], cell, starts.to(cell)[window])
