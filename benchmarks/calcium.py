"""Spikes from calcium imaging: how near inferred spikes are to true ones, method by method.

Sets of cells: "linear" and "saturating", simulated; "gcamp6f" and "gcamp6s", real neurons with
recorded spikes, which are read from ``--root`` or PYRO_LVM_DATA. No method sees true spikes of
these cells. Prints tables for each set; finished runs are kept in a file in ``results``:
started again, it goes on with the others, or with ``--no-run`` prints what there is.

    python -m benchmarks.calcium linear saturating gcamp6f gcamp6s --seeds 3

OASIS needs the extra ``benchmarks``: ``pip install -e .[benchmarks]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import calcium_guides, calcium_oasis, kept
from benchmarks.calcium_cells import SETS, Cells, cells_of
from benchmarks.calcium_scores import Found, scores
from benchmarks.command_line import parser_of
from pyro_lvm.diagnostics import spread

__all__ = ["METHODS", "by_seed", "main", "markdown", "runs_of"]

RESULTS = Path(__file__).parent / "results" / "calcium.json"
METHODS: Mapping[str, Callable[[Cells, int, int | None], Found]] = {
    **{name: partial(calcium_oasis.run, name) for name in calcium_oasis.METHODS},
    **calcium_guides.METHODS,
    **calcium_guides.FOR_REAL_CELLS,
}

OVER_SEEDS = ("r 17 ms", "r 40 ms", "count ratio", "90 % counts cover", "nats a second", "F1 50 ms")
"""Columns whose range over seeds is printed."""

Scores = Mapping[str, Sequence[float]]
"""Values by cell, or one for the method, by the names of columns."""


def main() -> None:
    """Run what is not yet done and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--root", type=Path, help="folder of the real recordings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each method's own number")
    parser.add_argument("--run", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS if options.save else None
    for name in options.sets:
        cells = cells_of(name, options.root)
        found = {
            method: runs_of(path, name, cells, method, options.seeds, options.steps, options.run)
            for method in options.methods
            if not (cells.simulated and method in calcium_guides.FOR_REAL_CELLS)
        }
        print(f"## {name}, {len(cells.traces)} cells\n\n{markdown(found)}\n")
        print(f"The {len(cells.test)} test cells\n\n{markdown(found, cells.test)}\n")
        print(f"All cells, by seed: least and largest median\n\n{by_seed(found)}\n")


def runs_of(
    path: Path | None,
    name: str,
    cells: Cells,
    method: str,
    seeds: int,
    steps: int | None = None,
    run: bool = True,
) -> list[Scores]:
    """The scores of a method by seed, of now or of before; OASIS needs one seed.

    Args:
        path: the file of finished runs; None to keep nothing.
        name: of the set of cells.
        cells: the set.
        method: its name.
        seeds: how many.
        steps: in place of the method's own number.
        run: what is missing; otherwise it is left out.
    """

    def scored(seed: int) -> Scores:
        torch.manual_seed(seed)
        return scores(METHODS[method](cells, seed, steps), cells)

    number = 1 if method in calcium_oasis.METHODS else seeds
    keys = [f"{name}: {method}, seed {seed}" for seed in range(number)]
    keys = [key + (f", {steps} steps" if steps else "") for key in keys]
    wanted = [seed for seed, key in enumerate(keys) if run or key in kept.finished(path)]
    return [kept.found(path, keys[seed], partial(scored, seed)) for seed in wanted]


def markdown(found: Mapping[str, Sequence[Scores]], cells: Sequence[int] | None = None) -> str:
    """One line a method: median and quartiles over cells, of the mean over seeds.

    Args:
        found: scores of each method by seed; methods without any are left out.
        cells: which cells; all by default.
    """
    found = {method: runs for method, runs in found.items() if runs}
    fullest = sorted((run for runs in found.values() for run in runs), key=len, reverse=True)
    columns = list(dict.fromkeys(column for run in fullest for column in run))
    lines = [f"| | {' | '.join(columns)} | seeds |", "|" + " --- |" * (len(columns) + 2)]
    for method, runs in found.items():
        shown = [_cell([run[c] for run in runs if c in run], cells) for c in columns]
        lines.append(f"| {method} | {' | '.join(shown)} | {len(runs)} |")
    return "\n".join(lines)


def by_seed(found: Mapping[str, Sequence[Scores]]) -> str:
    """One line a method of several seeds: the least and largest median over cells."""
    lines = [f"| | {' | '.join(OVER_SEEDS)} | seeds |", "|" + " --- |" * (len(OVER_SEEDS) + 2)]
    for method, runs in found.items():
        if len(runs) > 1:
            shown = [_range([run[column] for run in runs]) for column in OVER_SEEDS]
            lines.append(f"| {method} | {' | '.join(shown)} | {len(runs)} |")
    return "\n".join(lines)


def _range(runs: Sequence[Sequence[float]]) -> str:
    medians = torch.tensor(runs).nanmedian(1).values
    return f"{medians.min():.2f} to {medians.max():.2f}"


def _cell(runs: Sequence[Sequence[float]], cells: Sequence[int] | None) -> str:
    if not runs:
        return ""
    values = torch.tensor(runs).mean(0)
    if len(values) == 1:
        return f"{values.item():.3g}"
    return str(spread(values if cells is None else values[list(cells)]))


if __name__ == "__main__":
    main()
