"""The curves of ``scaling``: time above, memory below, one size a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.kept import Run
from benchmarks.scaling_axes import AXES

__all__ = ["figure"]

UNITS = {"ms": "CPU time, ms", "MiB": "peak memory, MiB"}
STYLES = {
    "ours": ("C0", "o-"),
    "ours, compiled": ("C1", "s-"),
    "ours, in chunks": ("C2", "^-"),
    "Pyro": ("0.5", "o--"),
}

Sweep = Mapping[str, Sequence[Run]]
"""What was found along one axis, by the name of a run and by seed."""


def figure(sweeps: Mapping[str, Sweep]) -> Figure:
    """Means over seeds on logarithmic axes, by the name of an axis."""
    figure = Figure(figsize=(16, 6), layout="constrained")
    axes = figure.subplots(len(UNITS), len(AXES), sharex="col")
    for row, (unit, title) in zip(axes, UNITS.items()):
        row[0].set_ylabel(title)
        for axis, part in zip(row, AXES):
            _draw(axis, sweeps.get(part, {}), unit)
    for axis, (part, swept) in zip(axes[-1], AXES.items()):
        axis.set_xlabel(f"{part}, {swept.symbol}" if swept.symbol != part else part)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(STYLES))
    return figure


def _draw(axis: Axes, sweep: Sweep, unit: str) -> None:
    for label, (colour, style) in STYLES.items():
        column = f"{label}, {unit}"
        points = {
            int(name.split()[-1]): mean(run[column] for run in runs)
            for name, runs in sweep.items()
            if column in runs[0]
        }
        if points:
            axis.plot([*points], [*points.values()], style, color=colour, label=label)
    axis.set(xscale="log", yscale="log")
