"""Tables of runs by seed, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

from benchmarks.kept import Run

__all__ = ["Cell", "by_seed", "markdown", "mean_and_deviation"]

Cell = Callable[[Sequence[float]], str]
"""What a cell shows of one column's values by seed."""


def by_seed(values: Sequence[float], digits: int = 3) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Over the seeds; the standard deviation is that of one seed."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else by_seed(values)


def markdown(outcomes: Mapping[str, Sequence[Run]], cell: Cell = by_seed) -> str:
    """One line for each kind of run; in each cell what ``cell`` makes of the values by seed."""
    columns = list(dict.fromkeys(c for runs in outcomes.values() for run in runs for c in run))
    lines = [f"| | {' | '.join(columns)} |", "|" + " --- |" * (len(columns) + 1)]
    for name, runs in outcomes.items():
        cells = [cell([run[c] for run in runs if c in run]) for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
