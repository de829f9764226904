"""Recorded traces of several cells: their values, sampling rate and names, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["Traces", "check_rate", "unusable"]


@dataclass(frozen=True, repr=False, eq=False)
class Traces:
    """Fluorescence of several cells, sampled together.

    Frame t covers the time from ``t / rate`` to ``(t + 1) / rate`` after ``start``. NaN marks
    a frame that was not observed; how many there are is part of the ``repr``.

    Attributes:
        x: ``(cells, frames)``, such as dF/F; NaN = unobserved.
        rate: frames a second, Hz.
        names: of the cells; by default ``cell0``, ``cell1`` and so on.
        spikes: ``(cells, frames)`` true spike counts where they are known, NaN elsewhere.
        start: time at which the first frame begins, s.

    Raises:
        DataError: not two dims, one frame, infinite values, a cell that is never observed or
            has one value throughout, a rate that is missing or not positive, or names or
            spikes that do not fit ``x``.

    Example:
        >>> traces = Traces(torch.tensor([[0.0, 0.5, float("nan"), 0.1]]), rate=2.0)
        >>> traces
        Traces(cells=1, frames=4, rate=2 Hz, 2.0 s, unobserved=1)
        >>> traces.times
        tensor([0.2500, 0.7500, 1.2500, 1.7500], dtype=torch.float64)
    """

    x: Tensor
    rate: float
    names: Sequence[str] = ()
    spikes: Tensor | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        check_rate(self.rate)
        _check_values(self.x)
        default = [f"cell{i}" for i in range(len(self.x))]
        object.__setattr__(self, "names", tuple(self.names or default))
        _check_fit(self)
        _check_usable(self)

    def __repr__(self) -> str:
        cells, frames = self.x.shape
        known = "" if self.spikes is None else ", spikes known"
        return (
            f"Traces(cells={cells}, frames={frames}, rate={self.rate:g} Hz, "
            f"{frames / self.rate:.1f} s, unobserved={self.num_unobserved}{known})"
        )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def num_unobserved(self) -> int:
        """Frames of all cells that are NaN."""
        return int(self.x.isnan().sum())

    @property
    def times(self) -> Tensor:  # (frames,)
        """Middle of each frame, s, in float64: a clock may have started long ago."""
        frames = torch.arange(self.x.shape[1], dtype=torch.float64, device=self.x.device)
        return self.start + (frames + 0.5) / self.rate

    def select(self, cells: Sequence[int]) -> Traces:
        """The cells with these indices, in that order."""
        chosen = list(cells)
        spikes = None if self.spikes is None else self.spikes[chosen]
        names = [self.names[i] for i in chosen]
        return replace(self, x=self.x[chosen], names=names, spikes=spikes)


def unusable(x: Tensor) -> Tensor:  # (cells,)
    """Cells without two different observed values: nothing can be learnt from them.

    Args:
        x: ``(cells, frames)``, NaN = unobserved.

    Example:
        >>> unusable(torch.tensor([[0.0, 1.0], [2.0, 2.0], [3.0, float("nan")]]))
        tensor([False,  True,  True])
    """
    lowest = x.nan_to_num(nan=math.inf).amin(1)
    return lowest >= x.nan_to_num(nan=-math.inf).amax(1)


def check_rate(rate: float) -> None:
    """Raise unless ``rate`` is a number of frames a second.

    Raises:
        DataError: it is not finite, or not above 0.
    """
    if not (math.isfinite(rate) and rate > 0):
        hint = "Pass the frame rate of the recording, such as rate=30.0."
        raise DataError(explain("rate", "frames a second, above 0", str(rate), hint))


def _check_values(x: Tensor) -> None:
    if x.dim() != 2 or len(x) == 0 or x.shape[1] < 2:
        hint = "Pass one row a cell, and at least two frames."
        found = f"shape {tuple(x.shape)}"
        raise DataError(explain("traces", "shape (cells, frames)", found, hint))
    infinite = int(x.isinf().sum())
    if infinite:
        hint = "Mark frames that were not observed by NaN."
        raise DataError(explain("traces", "finite values or NaN", f"{infinite} infinite", hint))


def _check_fit(traces: Traces) -> None:
    cells = len(traces.x)
    if len(traces.names) != cells:
        hint = "Pass one name a cell, or none."
        raise DataError(explain("names", f"{cells} names", str(len(traces.names)), hint))
    if traces.spikes is not None and traces.spikes.shape != traces.x.shape:
        expected = f"shape {tuple(traces.x.shape)}, that of the traces"
        hint = "Count the spikes of each frame of each cell."
        raise DataError(explain("spikes", expected, f"{tuple(traces.spikes.shape)}", hint))


def _check_usable(traces: Traces) -> None:
    dead = unusable(traces.x).nonzero().flatten().tolist()
    if dead:
        shown = ", ".join(repr(traces.names[i]) for i in dead[:5])
        never = bool(traces.x[dead[0]].isnan().all())
        found = "no observed frame" if never else "one value throughout"
        rest = f" (of {len(dead)} such cells)" if len(dead) > 1 else ""
        hint = "Leave such cells out; read_traces does with drop_dead=True."
        raise DataError(explain(f"cell {shown}", "a trace that varies", found + rest, hint))
