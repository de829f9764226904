"""OASIS, the deconvolution that the field uses, on the traces of the benchmark.

Friedrich, Zhou, Paninski (2017), Fast online deconvolution of calcium imaging data, PLoS
Computational Biology 13, in the package oasis-deconv by its authors. The baseline may be
negative, as that of dF/F can be; everything else is the package's own default, or what the
name of a method says.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch

from benchmarks.calcium_cells import Cells
from benchmarks.calcium_scores import Found

__all__ = ["METHODS", "run"]

METHODS: Mapping[str, Mapping[str, Any]] = {
    "OASIS AR(1)": {},
    "OASIS AR(1), decay refined": {"optimize_g": 5},
    "OASIS AR(2)": {"tau_r": None},
    "OASIS, kernel given": {"framerate": True},
}
"""Arguments of ``oasis.functions.deconvolve``. The last row gets the true decay of simulated
cells, and the indicator's nominal rise and decay for real ones."""


def run(name: str, cells: Cells, seed: int, steps: int | None) -> Found:
    """Spikes of each cell, in units of the dF/F of one spike; nothing is random."""
    from oasis.functions import deconvolve

    spikes = torch.zeros_like(cells.traces.x)
    started = perf_counter()
    for i, trace in enumerate(cells.traces.x):
        observed = ~trace.isnan()
        options = _options(name, cells, i)
        found = deconvolve(trace[observed].double().numpy(), b_nonneg=False, **options)
        spikes[i, observed] = torch.as_tensor(found.s).to(spikes) / cells.amplitude[i]
    return Found(spikes, seconds=perf_counter() - started)


def _options(name: str, cells: Cells, cell: int) -> dict[str, Any]:
    if "framerate" not in METHODS[name]:
        return dict(METHODS[name])
    return {
        "framerate": cells.traces.rate,
        "tau_d": cells.decay[cell].item(),
        "tau_r": cells.rise or 0,
    }
