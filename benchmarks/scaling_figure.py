"""The curves of ``scaling`` from its kept runs: time above, memory below, one size a column.

python -m benchmarks.scaling_figure
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.kept import Run, finished
from benchmarks.scaling_axes import AXES
from benchmarks.suite import RESULTS

__all__ = ["figure"]

KEY = re.compile(r"(?P<part>\w+): \w+ = (?P<size>\d+), seed \d+$")
UNITS = {"ms": "CPU time, ms", "MiB": "peak memory, MiB"}
STYLES = {
    "ours": ("C0", "o-"),
    "ours, compiled": ("C1", "s-"),
    "ours, in chunks": ("C2", "^-"),
    "Pyro": ("0.5", "o--"),
}


def figure(runs: Mapping[str, Run]) -> Figure:
    """Means over seeds on logarithmic axes."""
    figure = Figure(figsize=(16, 6), layout="constrained")
    axes = figure.subplots(len(UNITS), len(AXES), sharex="col")
    for row, (unit, title) in zip(axes, UNITS.items()):
        row[0].set_ylabel(title)
        for axis, part in zip(row, AXES):
            _draw(axis, _by_size(runs, part), unit)
    for axis, (part, swept) in zip(axes[-1], AXES.items()):
        axis.set_xlabel(f"{part}, {swept.symbol}" if swept.symbol != part else part)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(STYLES))
    return figure


def _by_size(runs: Mapping[str, Run], part: str) -> dict[int, list[Run]]:
    found: dict[int, list[Run]] = {}
    for key, run in runs.items():
        if (match := KEY.match(key)) and match["part"] == part:
            found.setdefault(int(match["size"]), []).append(run)
    return dict(sorted(found.items()))


def _draw(axis: Axes, by_size: Mapping[int, list[Run]], unit: str) -> None:
    for name, (colour, style) in STYLES.items():
        column = f"{name}, {unit}"
        points = {
            size: mean(run[column] for run in runs)
            for size, runs in by_size.items()
            if column in runs[0]
        }
        if points:
            axis.plot([*points], [*points.values()], style, color=colour, label=name)
    axis.set(xscale="log", yscale="log")


if __name__ == "__main__":
    figure(finished(RESULTS / "scaling.json")).savefig(RESULTS / "scaling.png", dpi=70)
