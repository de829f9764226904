"""A user's own recordings: traces from CSV and NumPy files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.trace_tables import TraceTable, read_table
from pyro_lvm.data.traces import Traces, unusable
from pyro_lvm.errors import DataError, explain

__all__ = ["read_traces"]

_UNEVEN = 0.25
"""Share of a frame by which times may miss an even grid: they are often rounded."""
_SLOWEST = 0.5
"""Hz; times that mean a lower rate are not in seconds."""
_CLOCK = 20
"""Frames after which a column that rose in every one is no fluorescence."""


def read_traces(
    path: str | Path,
    rate: float | None = None,
    *,
    cells_in: Literal["columns", "rows"] | None = None,
    drop_dead: bool = False,
) -> Traces:
    r"""Traces from a table of frames by cells.

    - ``.csv``: one row a frame, one column a cell, a first row of names if there is one (0, 1,
      2, ... are names), and times in seconds in a column called "time", "t" or "seconds".
      Nothing and "nan" are unobserved frames.
    - ``.npy``: the table.
    - ``.npz``: the table as ``x`` and, where known, ``rate``, ``time``, ``names`` and
      ``spikes`` (true counts, laid out as ``x``).

    NaN frames are kept as unobserved; the ``repr`` of what comes back tells their number.

    Args:
        path: the file.
        rate: frames a second, Hz; by default what the file says, or its times, if they are
            evenly spaced.
        cells_in: "columns" or "rows", to insist on where the cells are. By default they are
            in columns, and a table with more columns than rows is refused, as it is more
            likely the wrong way round (Suite2p's ``F.npy`` has cells in rows).
        drop_dead: leave out cells that are never observed or have one value throughout,
            which are refused otherwise.

    Raises:
        DataError: no such file, no numbers in it, no rate, uneven times, more cells than
            frames, times or frame numbers in place of a cell, or values that :class:`Traces`
            refuses.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "traces.csv"
        ...     _ = file.write_text("time,left,right\n0.0,1,5\n0.1,2,\n0.2,4,5.5\n")
        ...     traces = read_traces(file)
        >>> traces, traces.names
        (Traces(cells=2, frames=3, rate=10 Hz, 0.3 s, unobserved=1), ('left', 'right'))
    """
    table = read_table(Path(path))
    if rate is None:
        rate = _rate(table, str(path))
    x = _cells_first(table.values, cells_in, str(path))
    spikes = None if table.spikes is None else _cells_first(table.spikes, cells_in, "spikes")
    names = table.names or [f"cell{i}" for i in range(len(x))]
    _check_clock(x, names, str(path))
    kept = ~unusable(x) if drop_dead else torch.ones(len(x), dtype=torch.bool)
    return Traces(
        x[kept],
        rate,
        list(compress(names, kept.tolist())),
        None if spikes is None else spikes[kept],
        0.0 if table.times is None else float(table.times[0]),
    )


def _cells_first(values: Any, cells_in: str | None, where: str) -> Tensor:  # (cells, frames)
    if values.ndim != 2:
        hint = "Save a table, one row a frame and one column a cell."
        raise DataError(explain(where, "two dims", f"shape {values.shape}", hint))
    frames, cells = values.shape
    if cells_in is None and cells > frames:
        found = f"{frames} frames of {cells} cells"
        hint = (
            "Pass cells_in='rows' if the table is transposed, cells_in='columns' if there are "
            "more cells than frames indeed."
        )
        raise DataError(explain(where, "more frames (rows) than cells (columns)", found, hint))
    table = torch.as_tensor(values, dtype=torch.get_default_dtype())
    return table if cells_in == "rows" else table.T.contiguous()


def _check_clock(x: Tensor, names: Sequence[str], where: str) -> None:
    if x.shape[1] < _CLOCK:
        return
    clocks = [name for name, rises in zip(names, (x.diff() > 0).all(1), strict=False) if rises]
    if clocks:
        hint = "Call it 'time' if it holds seconds; leave it out if it numbers the frames."
        found = "a rise in every frame"
        raise DataError(explain(f"column {clocks[0]!r} of {where}", "fluorescence", found, hint))


def _rate(table: TraceTable, where: str) -> float:
    """What the table says, else what its times mean."""
    if table.rate is not None:
        return table.rate
    if table.times is None or len(table.times) < 2:
        hint = "Pass the frame rate of the recording, such as rate=30.0, or a column 'time'."
        raise DataError(explain(f"rate of {where}", "frames a second", "none", hint))
    times = np.asarray(table.times, dtype=float)
    step = (times[-1] - times[0]) / (len(times) - 1)
    misses = np.abs(times - times[0] - step * np.arange(len(times)))
    if not (step > 0 and misses.max() <= _UNEVEN * step):
        found = f"steps from {np.diff(times).min():.4g} to {np.diff(times).max():.4g}"
        hint = "Put NaN where frames were dropped, or pass rate= if the times are wrong."
        raise DataError(explain(f"times of {where}", "even steps", found, hint))
    if 1 / step < _SLOWEST:
        hint = "Give times in seconds, or pass rate= in Hz."
        raise DataError(explain(f"times of {where}", "seconds", f"steps of {step:.4g}", hint))
    return float(1 / step)
