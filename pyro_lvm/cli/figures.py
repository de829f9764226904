"""Pictures of a run, each a function from tensors to a figure that the caller saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_lvm.cli.evaluation import Summary
from pyro_lvm.training.files import written_whole

__all__ = [
    "comparison",
    "image_grid",
    "latent_pairs",
    "reconstructions",
    "save_figure",
    "training_curves",
]

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


def save_figure(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, making the folder; returns the path."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path


def training_curves(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """One panel a quantity, one line a run.

    Args:
        curves: by panel title, then by label of the line: steps and values. A quantity
            measured once has a marker instead of a line.
    """
    figure = Figure(figsize=(5 * len(curves), 3.6), layout="constrained")
    for axes, (title, lines) in zip(_row(figure, len(curves)), curves.items(), strict=True):
        for label, (steps, values) in lines.items():
            axes.plot(steps, values, label=label, lw=1.2, marker="o" if len(steps) == 1 else "")
        axes.set(title=title, xlabel="step")
        _zoom_past_start(axes, list(lines.values()))
    if len(lines) > 1:
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _zoom_past_start(axes: Axes, lines: Sequence[Curve]) -> None:
    """Let the y-axis show where training ends, not how far off it began."""
    settled = [v for _, values in lines for v in values[len(values) // 20 :] if v == v]
    if len(settled) > 2:
        low, high = min(settled), max(settled)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def image_grid(images: Tensor, title: str, columns: int = 12) -> Figure:
    """Images ``(N, height, width)`` with values in [0, 1], left to right, top to bottom."""
    sheet = _sheet(images.detach().float().cpu(), columns)
    size = 0.6 * columns
    figure = Figure(figsize=(size, size * len(sheet) / sheet.shape[1] + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.axis("off")
    return figure


def _sheet(images: Tensor, columns: int) -> Tensor:
    """One big picture of all ``images``, with a border around each."""
    count, height, width = images.shape
    border = max(1, height // 8)
    sheet = images.new_zeros(ceil(count / columns) * columns, height + border, width + border)
    sheet[:count, :height, :width] = images
    tiles = sheet.unflatten(0, (-1, columns))  # (rows, columns, height, width)
    return torch.cat([torch.cat(list(row), 1) for row in tiles])


def reconstructions(data: Tensor, means: Tensor) -> Figure:
    """Data above what the model makes of them, both ``(N, height, width)``."""
    title = "test data (top) and their reconstructions"
    return image_grid(torch.cat([data, means]), title, columns=len(data))


def latent_pairs(draws: Tensor, names: Sequence[str], num_dims: int = 4) -> Figure:
    """Pair plot of the latent dims whose posterior means vary most over the data.

    Args:
        draws: ``(num_samples, N, features)`` posterior draws; the first of each is shown.
        names: of the features.
        num_dims: dims to show.
    """
    activity = draws.mean(0).var(0)  # (features,)
    dims = activity.topk(min(num_dims, len(activity))).indices.sort().values.tolist()
    figure = Figure(figsize=(2 * len(dims), 2 * len(dims)), layout="constrained")
    figure.suptitle("posterior draws of the test data, most active dims", fontsize=10)
    grid = figure.subplots(len(dims), len(dims), squeeze=False, sharex="col")
    shown = draws[0].detach().cpu().numpy()
    for row, vertical in enumerate(dims):
        for column, horizontal in enumerate(dims):
            axes = grid[row, column]
            if row == column:
                axes.hist(shown[:, vertical], bins=30, color="0.6")
                axes.set_yticks([])
            else:
                axes.scatter(shown[:, horizontal], shown[:, vertical], s=4, color="tab:blue")
            axes.set(xlabel=names[horizontal], ylabel=names[vertical])
            axes.label_outer()
    return figure


def comparison(rows: Sequence[Summary]) -> Figure:
    """Evidence with its error, importance-weight health and cost of each objective."""
    figure = Figure(figsize=(12, 1.4 + 0.45 * len(rows)), layout="constrained")
    panels = _row(figure, 4, sharey=True)
    places = range(len(rows), 0, -1)
    gains = [row.gain for row in rows]
    errors = [row.gain_error for row in rows]
    panels[0].errorbar(gains, places, xerr=errors, fmt="o", color="tab:blue", capsize=3)
    panels[0].axvline(0, color="0.7", lw=1)
    panels[0].set(title="gain in test log p(x)", xlabel="nats per datum over the first")
    panels[0].set_yticks(list(places), [row.objective for row in rows])
    by = ", by discriminator" if any(row.weights_are_estimates for row in rows) else ""
    khats = [100 * row.khat_share for row in rows]
    sizes = [100 * row.effective_share for row in rows]
    _bars(panels[1], places, khats, "k-hat above 0.7", f"% of data{by}")
    _bars(panels[2], places, sizes, "ESS", f"% of draws{by}")
    _bars(panels[3], places, [1e3 * row.seconds_per_step for row in rows], "cost", "ms per step")
    return figure


def _bars(axes: Axes, places: Sequence[int], values: list[float], title: str, unit: str) -> None:
    bars = axes.barh(places, values, color="tab:blue", height=0.6)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set(title=title, xlabel=unit)
    axes.margins(x=0.2)


def _row(figure: Figure, count: int, sharey: bool = False) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False, sharey=sharey)[0])
