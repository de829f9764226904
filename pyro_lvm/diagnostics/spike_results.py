"""Inferred spikes as ArviZ data, with the recording they were inferred from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyro_lvm.data import Traces
from pyro_lvm.diagnostics.spikes import check_spikes
from pyro_lvm.inference_data import Variable, as_container

__all__ = ["spike_inference_data"]


def spike_inference_data(
    traces: Traces,
    spikes: Tensor,
    *,
    calcium: Tensor | None = None,
    fluorescence: Tensor | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """What was inferred, what it predicts and what was recorded, by cell and time.

    Groups: posterior (``spikes``, ``calcium``), posterior_predictive (``fluorescence``),
    observed_data (``fluorescence``, NaN = unobserved) and, where they are known, constant_data
    (``true_spikes``). Dims are ``chain, draw, cell, time``, cells by name, time in seconds.

    Args:
        traces: the recording.
        spikes: ``(num_samples, cells, frames)`` posterior draws.
        calcium: draws of the noiseless fluorescence that follows from them, same shape.
        fluorescence: draws of fluorescence anew, same shape.
        attrs: for the record, such as the seed.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` from 1.0.

    Raises:
        DataError: draws that are not on the frames of the recording.

    Example:
        >>> import torch
        >>> traces = Traces(torch.randn(2, 30), rate=10.0, names=["a", "b"])
        >>> container = spike_inference_data(traces, torch.zeros(50, 2, 30))
        >>> dict(container["posterior"].sizes)
        {'chain': 1, 'draw': 50, 'cell': 2, 'time': 30}
    """
    for draws in (spikes, calcium, fluorescence):
        if draws is not None:
            check_spikes(draws, traces.x)
    groups = {
        "posterior": _variables(spikes=spikes, calcium=calcium),
        "posterior_predictive": _variables(fluorescence=fluorescence),
        "observed_data": _variables(fluorescence=traces.x),
        "constant_data": _variables(true_spikes=traces.spikes),
    }
    coords: dict[str, Any] = {"cell": traces.names, "time": traces.times.cpu().numpy()}
    return as_container(groups, coords, attrs)


def _variables(**values: Tensor | None) -> dict[str, Variable]:
    """Those that there are."""
    return {
        name: Variable(("cell", "time"), array.detach().cpu().numpy())
        for name, array in values.items()
        if array is not None
    }
