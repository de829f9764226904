"""The cells of the calcium benchmark: real ones with recorded spikes, and simulated ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_lvm.data import Traces, calcium, split_cells

__all__ = ["Cells", "cells_of"]

RATE = 60.0
NOMINAL = {"gcamp6f": (0.19, 0.02, 0.4), "gcamp6s": (0.23, 0.05, 1.0)}
"""dF/F of one spike and time constants of rise and decay, s (Chen et al. 2013)."""


@dataclass(frozen=True)
class Cells:
    """Traces with true spikes, and what a method may be told of them.

    Attributes:
        traces: at 60 Hz.
        amplitude: ``(cells,)`` dF/F of one spike: true if simulated, nominal if real.
        decay: ``(cells,)`` s, the same.
        rise: s, nominal; None where the simulation has none.
        test: indices of the cells that no method is trained on.
        simulated: so the truth about them is known.
    """

    traces: Traces
    amplitude: Tensor
    decay: Tensor
    rise: float | None
    test: list[int]
    simulated: bool


def cells_of(name: str, root: Path | None = None) -> Cells:
    """The set of that name: "gcamp6f" or "gcamp6s"."""
    traces = calcium(name, root, rate=RATE)
    amplitude, rise, decay = NOMINAL[name]
    test = [traces.names.index(cell) for cell in split_cells(traces).test.names]
    ones = torch.ones(len(traces))
    return Cells(traces, amplitude * ones, decay * ones, rise, sorted(test), simulated=False)
