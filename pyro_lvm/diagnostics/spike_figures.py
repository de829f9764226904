"""Pictures of inferred spikes; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_lvm.data import Traces
from pyro_lvm.diagnostics.spikes import check_spikes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_spikes"]

_TRUE, _INFERRED = "tab:red", "tab:blue"
_LEGEND: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 1.0),
    "fontsize": 8,
    "ncols": 3,
    "frameon": False,
}


def plot_spikes(
    traces: Traces,
    spikes: Tensor,
    cell: int = 0,
    *,
    fitted: Tensor | None = None,
    start: float = 0.0,
    seconds: float = 20.0,
    num_rows: int = 40,
) -> Figure:
    """One cell: its trace, expected spikes a frame, and posterior draws as a raster.

    True spikes, where they are known, are ticks above the trace and the top row of the raster.

    Args:
        traces: the recording.
        spikes: ``(num_samples, cells, frames)`` posterior draws.
        cell: its index.
        fitted: ``(num_samples, cells, frames)`` noiseless fluorescence of the draws; its mean
            and central 90 % are drawn over the trace.
        start: where the picture begins, s.
        seconds: how much of the recording it shows.
        num_rows: draws in the raster, the first ones.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Raises:
        DataError: draws that are not on the frames of the recording.

    Example:
        >>> import torch
        >>> traces = Traces(torch.randn(1, 300), rate=30.0, names=["left"])
        >>> figure = plot_spikes(traces, torch.bernoulli(torch.full((20, 1, 300), 0.02)))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['dF/F', 'spikes a frame', 'draw']
    """
    from matplotlib.figure import Figure

    check_spikes(spikes, traces.x)
    shown = (traces.times >= start) & (traces.times < start + seconds)
    times, drawn = traces.times[shown].cpu(), spikes[:, cell, shown].cpu()
    true = None if traces.spikes is None else times[traces.spikes[cell, shown].cpu() > 0]
    figure = Figure(figsize=(10.0, 5.0), layout="constrained")
    heights = {"height_ratios": [3, 1.6, 2]}
    top, middle, bottom = figure.subplots(3, 1, sharex=True, gridspec_kw=heights)
    _draw_trace(top, times, traces.x[cell, shown].cpu(), true)
    if fitted is not None:
        _draw_fit(top, times, fitted[:, cell, shown].cpu())
    middle.fill_between(times, drawn.double().mean(0), step="mid", color=_INFERRED, lw=0)
    middle.set(ylabel="spikes a frame", ylim=(0, None))
    _draw_raster(bottom, times, drawn[:num_rows], true)
    top.set_title(traces.names[cell], loc="left", fontsize=10)
    bottom.set(xlabel="time (s)", xlim=(start, min(start + seconds, float(traces.times[-1]))))
    figure.align_ylabels()
    return figure


def _draw_trace(axes: Axes, times: Tensor, x: Tensor, true: Tensor | None) -> None:
    axes.plot(times, x, color="0.5", lw=0.7, label="recorded")
    axes.set_ylabel("dF/F")
    if true is not None:
        axes.margins(y=0.15)  # room for the ticks
        at = axes.get_xaxis_transform()
        heights = [0.9] * len(true)
        axes.plot(true, heights, "|", color=_TRUE, ms=9, transform=at, label="true spikes")
        axes.legend(**_LEGEND)


def _draw_fit(axes: Axes, times: Tensor, fitted: Tensor) -> None:
    low, high = fitted.double().quantile(fitted.new_tensor([0.05, 0.95]).double(), 0)
    axes.fill_between(times, low, high, color=_INFERRED, alpha=0.3, lw=0)
    axes.plot(times, fitted.mean(0), color=_INFERRED, lw=1.0, label="fitted")
    axes.legend(**_LEGEND)


def _draw_raster(axes: Axes, times: Tensor, drawn: Tensor, true: Tensor | None) -> None:
    rows = [times[draw > 0].tolist() for draw in drawn]
    axes.eventplot(rows, colors=_INFERRED, lineoffsets=range(len(rows)), linelengths=0.9, lw=1.2)
    top = float(len(rows))
    if true is not None:
        height = max(1.0, 0.1 * top)
        axes.eventplot(true, colors=_TRUE, lineoffsets=top + height / 2, linelengths=height, lw=1.2)
        top += height
    axes.set(ylabel="draw", ylim=(-0.5, top))
