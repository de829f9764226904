"""Recordings as the real ones are stored, small."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_neurons"]


def write_neurons(folder: Path, traces: list[Any], spike_times: list[Any]) -> None:
    """Neurons at 100 Hz, one array each of dF/F and of spike times (s), as GCaMP6f."""
    arrays: dict[str, Any] = {"n": len(traces)}
    for i, (trace, times) in enumerate(zip(traces, spike_times, strict=True)):
        key = f"{i:03d}"
        arrays[f"{key}_dff"] = np.asarray(trace, dtype=np.float32)
        arrays[f"{key}_spike_times"] = np.asarray(times)
        arrays[f"{key}_rate_hz"] = 100.0
        arrays[f"{key}_cell"] = f"CAttached_Allen_mouse_{i}_neuropil_subtracted_mini"
    np.savez(folder / "calcium_gcamp6f_v1.npz", **arrays)
