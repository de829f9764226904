"""Real recordings of calcium fluorescence with simultaneously recorded spikes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.data.checks import check_name
from pyro_lvm.data.files import DataFiles, read_arrays
from pyro_lvm.data.resampling import frame_counts, resample
from pyro_lvm.data.traces import Traces

__all__ = ["calcium"]

_HINT = (
    "Get {folder} of https://github.com/HelmchenLabSoftware/Cascade (Ground_truth), write an "
    "npz file with the number of neurons n and, for neuron i = 000, 001, ..., i_dff (dF/F), "
    "i_spike_times (s), i_rate_hz and i_cell (a name), and pass it or its folder as root or in "
    "the variable PYRO_LVM_DATA."
)
_FILES: Mapping[str, DataFiles] = {
    indicator: DataFiles(
        f"calcium {indicator}", f"calcium_{indicator}_v1.npz", _HINT.format(folder=folder)
    )
    for indicator, folder in {"gcamp6f": "DS10", "gcamp6s": "DS12"}.items()
}


def calcium(
    indicator: str = "gcamp6f", root: str | Path | None = None, *, rate: float = 60.0
) -> Traces:
    """Neurons of mouse visual cortex, their fluorescence and their true spikes.

    23 neurons with GCaMP6f (DS10 of the CASCADE data base, about 160 Hz) or 6 with GCaMP6s
    (DS12), two-photon imaging with juxtacellular recording, neuropil subtracted, from Chen et
    al. (2013), Ultrasensitive fluorescent proteins for imaging neuronal activity, Nature 499,
    doi:10.1038/nature12354, by way of Rupprecht et al. (2021),
    doi:10.1038/s41593-021-00895-5. They come under the GPL-3 and are not part of this
    package. Judge claims about new recordings by :func:`split_cells`, never by parts of a
    neuron's time.

    Each neuron is resampled to ``rate`` (:func:`resample`), its spikes are counted in the
    frames in which they fall, and short recordings end in NaN, traces and spikes alike.

    Read from ``root``, else from the folder in the environment variable ``PYRO_LVM_DATA``.

    Args:
        indicator: "gcamp6f" or "gcamp6s".
        root: ``calcium_<indicator>_v1.npz`` or its folder.
        rate: frames a second of what is returned, Hz.

    Raises:
        DataError: another indicator, or the file is not there or damaged.

    Example:
        >>> calcium("gcamp6f", "no/such/folder")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: calcium gcamp6f: expected calcium_gcamp6f_v1.npz, got none ...
    """
    files = check_name(indicator, _FILES, "indicator")
    arrays = files.read(files.find(root, files.expected), _read)
    cells = [_neuron(arrays, f"{i:03d}", rate) for i in range(int(arrays["n"]))]
    longest = max(cell.x.shape[1] for cell in cells)
    return Traces(
        torch.cat([_extended(cell.x, longest) for cell in cells]),
        rate,
        [cell.names[0] for cell in cells],
        torch.cat([_extended(cell.spikes, longest) for cell in cells if cell.spikes is not None]),
    )


def _read(path: Path) -> dict[str, Any]:
    arrays = read_arrays(path)
    needed = ["n", *(f"{int(arrays['n']) - 1:03d}_{key}" for key in ("dff", "spike_times"))]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise KeyError(f"no {missing[0]}")
    return arrays


def _neuron(arrays: Mapping[str, Any], key: str, rate: float) -> Traces:
    dtype = torch.get_default_dtype()
    x = torch.as_tensor(arrays[f"{key}_dff"], dtype=dtype).unsqueeze(0)
    name = str(arrays[f"{key}_cell"]).removeprefix("CAttached_Allen_")
    traces = resample(
        Traces(x, float(arrays[f"{key}_rate_hz"]), [name.split("_neuropil")[0]]), rate
    )
    times = torch.as_tensor(arrays[f"{key}_spike_times"], dtype=torch.float64)
    spikes = frame_counts(times, rate, traces.x.shape[1]).to(x)
    return Traces(traces.x, rate, traces.names, spikes.unsqueeze(0))


def _extended(values: Tensor, frames: int) -> Tensor:
    return pad(values, (0, frames - values.shape[1]), value=torch.nan)
