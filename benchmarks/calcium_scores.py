"""What is said of inferred spikes in the calcium benchmark, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.calcium_cells import Cells
from pyro_lvm.diagnostics import (
    count_coverage,
    count_ratio,
    spike_auc,
    spike_average_precision,
    spike_correlation,
    spike_f1,
)

__all__ = ["Found", "scores"]

_LAGS = range(-2, 6)
"""Frames by which all estimates of a method may be late, for the one column that allows it."""


@dataclass(frozen=True)
class Found:
    """What a method found.

    Attributes:
        expected: ``(cells, frames)`` spikes a frame.
        draws: ``(num_samples, cells, frames)`` posterior draws, if it has any.
        log_q: ``(cells,)`` nats a second, log-density of the true train, if it has one.
        seconds: of inference, training left out.
        training: seconds of training.
    """

    expected: Tensor
    draws: Tensor | None = None
    log_q: Tensor | None = None
    seconds: float = 0.0
    training: float = 0.0


def scores(found: Found, cells: Cells) -> dict[str, list[float]]:
    """A list for each column: one value a cell, or a single one for the method.

    Frames that were not observed count as such, and no column is used to choose anything but
    the lag of "r 40 ms, lag", which is common to all cells and printed beside it.
    """
    expected, truth, rate = found.expected, cells.truth, cells.traces.rate
    values = {
        f"r {width:.0f} ms": spike_correlation(expected, truth, rate, bin_ms=width)
        for width in (1000 / 60, 40.0, 100.0)
    }
    lagged = {lag: spike_correlation(expected.roll(-lag, 1), truth, rate) for lag in _LAGS}
    lag = max(lagged, key=lambda lag: float(lagged[lag].nanmedian()))
    values |= {"r 40 ms, lag": lagged[lag], "lag (frames)": torch.tensor([float(lag)])}
    values |= {
        "count ratio": count_ratio(expected, truth),
        "AUC": spike_auc(expected, truth),
        "AP": spike_average_precision(expected, truth),
    }
    if found.draws is not None:
        values |= _posterior(found.draws, truth, rate)
    if found.log_q is not None:
        values |= {"log q(true)": found.log_q}
    values |= {"seconds": torch.tensor([found.seconds]), "training": torch.tensor([found.training])}
    return {column: [round(v, 4) for v in row.tolist()] for column, row in values.items()}


def _posterior(draws: Tensor, truth: Tensor, rate: float) -> dict[str, Tensor]:
    covered = count_coverage(draws, truth, rate, window=1.0, level=0.9)
    probability = draws.gt(0).to(draws).mean(0).clamp(1e-4, 1 - 1e-4)
    fired = truth.gt(0).to(draws)
    log_score = fired * probability.log() + (1 - fired) * (-probability).log1p()
    return {
        "90 % counts cover": covered.closed,
        "randomised": covered.randomised,
        "nats a second": log_score.where(~truth.isnan(), torch.nan).nanmean(1) * rate,
        "F1 50 ms": spike_f1(draws[:50], truth, rate).nanmean(0),
    }
