"""The cells of the calcium benchmark: real ones with recorded spikes, and simulated ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_lvm.data import Traces, calcium, split_cells
from pyro_lvm.models.calcium_simulation import simulate

__all__ = ["RATE", "SETS", "Cells", "cells_of"]

RATE = 60.0
SETS = ("linear", "saturating", "gcamp6f", "gcamp6s")
_NOMINAL = {"gcamp6f": (0.19, 0.02, 0.4), "gcamp6s": (0.23, 0.05, 1.0)}
"""dF/F of one spike and time constants of rise and decay, s (Chen et al. 2013)."""
_SIMULATED, _HELD_OUT, _FRAMES = 20, 10, 2000


@dataclass(frozen=True)
class Cells:
    """Traces at 60 Hz with true spikes, and what a method may be told of them.

    Attributes:
        traces: the recording.
        amplitude: ``(cells,)`` dF/F of one spike: true if simulated, nominal if real.
        decay: ``(cells,)`` s in which that falls to 1/e of its peak, the same.
        rise: time constant, s, nominal; None where the simulation has none or it is not told.
        test: indices of the cells that no method is trained on.
        preset: the simulation that is like them.
        bursts: the share of its spikes that begin a burst.
        simulated: they are from that preset themselves.
    """

    traces: Traces
    amplitude: Tensor
    decay: Tensor
    rise: float | None
    test: list[int]
    preset: str
    bursts: float
    simulated: bool

    @property
    def truth(self) -> Tensor:  # (cells, frames)
        """True counts, NaN where the trace is not observed."""
        if self.traces.spikes is None:
            raise ValueError("cells of a benchmark have true spikes")
        return self.traces.spikes.where(~self.traces.x.isnan(), torch.nan)


def cells_of(name: str, root: Path | None = None) -> Cells:
    """The set of that name, one of ``SETS``.

    Args:
        name: "linear" and "saturating" are simulated by the ranges of Speiser et al. (2017),
            20 cells of 2000 frames, of which 10 are held out.
        root: folder of the real recordings.
    """
    return _simulated(name) if name not in _NOMINAL else _real(name, root)


def _real(name: str, root: Path | None) -> Cells:
    traces = calcium(name, root, rate=RATE)
    amplitude, rise, decay = _NOMINAL[name]
    test = sorted(traces.names.index(cell) for cell in split_cells(traces).test.names)
    ones = torch.ones(len(traces))
    return Cells(traces, amplitude * ones, decay * ones, rise, test, name, 0.2, simulated=False)


@torch.no_grad()
def _simulated(name: str) -> Cells:
    x, spikes, model = simulate(name, _SIMULATED, _FRAMES, RATE)
    one = torch.zeros_like(x)
    one[:, 0] = 1
    response = model.response(one)  # (cells, frames)
    peak, place = response.max(1)
    falling = torch.arange(_FRAMES) > place.unsqueeze(1)
    fallen = falling & (response < peak.unsqueeze(1) / torch.e)
    decay = (fallen.float().argmax(1) - place) / RATE
    test = list(range(_SIMULATED - _HELD_OUT, _SIMULATED))
    traces = Traces(x, RATE, spikes=spikes)
    return Cells(traces, peak, decay, None, test, name, 0.0, simulated=True)
