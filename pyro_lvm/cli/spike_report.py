"""What inferred spikes leave to look at: tables, figures, and posterior.nc for ArviZ."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.cli.figures import save_figure
from pyro_lvm.cli.writing import save_container
from pyro_lvm.data import Traces, noise_level
from pyro_lvm.diagnostics import (
    count_coverage,
    count_ratio,
    plot_spikes,
    spike_correlation,
    spike_inference_data,
    spread,
)
from pyro_lvm.training.files import written_whole

__all__ = ["SpikeDraws", "summary", "write_spikes"]

_DIGITS = 6
_BINS = (25.0, 50.0, 100.0)
"""ms; never less than a frame."""


class SpikeDraws(NamedTuple):
    """Posterior draws, all ``(num_samples, cells, frames)``.

    Attributes:
        spikes: of each frame.
        fitted: fluorescence that follows from them, without noise and drift.
        fluorescence: the same with both, drawn anew.
    """

    spikes: Tensor
    fitted: Tensor
    fluorescence: Tensor


def write_spikes(
    traces: Traces, model: Any, drawn: SpikeDraws, folder: Path, *, num_figures: int, seed: int
) -> None:
    """Write spikes.csv, cells.csv, posterior.nc and the pictures of the first cells."""
    expected = drawn.spikes.mean(0)
    times = [f"{time:.6f}" for time in traces.times.tolist()]
    rows = zip(times, *expected.tolist(), strict=True)
    _write_csv(folder / "spikes.csv", ["time", *traces.names], rows)
    _write_cells(folder / "cells.csv", traces, model, expected)
    container = spike_inference_data(
        traces,
        drawn.spikes,
        calcium=drawn.fitted,
        fluorescence=drawn.fluorescence,
        attrs={"rate_hz": traces.rate, "seed": seed},
    )
    save_container(container, folder / "posterior.nc")
    for cell, name in list(enumerate(traces.names))[:num_figures]:
        figure = plot_spikes(traces, drawn.spikes, cell, fitted=drawn.fitted, start=traces.start)
        save_figure(figure, folder / "figures" / f"{cell:03d}_{_as_file(name)}.png")


def _rates(traces: Traces, expected: Tensor) -> Tensor:  # (cells,)
    """Spikes a second where the cell was observed: elsewhere they are the prior's."""
    return expected.where(~traces.x.isnan(), torch.nan).nanmean(1) * traces.rate


def _as_file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _write_cells(path: Path, traces: Traces, model: Any, expected: Tensor) -> None:
    """One row a cell: spikes a second, noise level in % per root Hz, the model's parameters."""
    names = [name.removesuffix("_unconstrained") for name, _ in model.named_parameters()]
    columns = {
        "spikes_per_second": _rates(traces, expected),
        "noise_level": noise_level(traces),
        **{name: getattr(model, name).detach() for name in names},
    }
    rows = zip(traces.names, *(values.tolist() for values in columns.values()), strict=True)
    _write_csv(path, ["cell", *columns], rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_short(value) for value in row] for row in rows)


def _short(value: Any) -> Any:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else value


def summary(traces: Traces, drawn: SpikeDraws) -> str:
    """What was found in one line, and how right it is where true spikes are known."""
    expected = drawn.spikes.mean(0)
    rates = spread(_rates(traces, expected))
    lines = [f"spikes a second: {rates}, median and quartiles over {len(traces)} cells"]
    if traces.spikes is not None:
        for width in sorted({max(width, 1000 / traces.rate) for width in _BINS}):
            r = spike_correlation(expected, traces.spikes, traces.rate, bin_ms=width)
            lines.append(f"correlation with true spikes in bins of {width:.0f} ms: {spread(r)}")
        covered = count_coverage(drawn.spikes, traces.spikes, traces.rate).closed
        lines.append(f"inferred over true spikes: {spread(count_ratio(expected, traces.spikes))}")
        lines.append(f"true counts of a second within their 90 % interval: {spread(covered)}")
    return "\n".join(lines)
