"""Spikes from calcium imaging: how near inferred spikes are to true ones, method by method.

Sets of cells: "linear" and "saturating", simulated; "gcamp6f" and "gcamp6s", real neurons with
recorded spikes, which are read from ``--root`` or PYRO_LVM_DATA. No method sees true spikes of
these cells. Prints a table for each set; finished runs are kept in a file in ``results``:
started again, it goes on with the others.

    python -m benchmarks.calcium linear saturating gcamp6f gcamp6s --seeds 3

OASIS needs the extra ``benchmarks``: ``pip install -e .[benchmarks]``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import calcium_guides, calcium_oasis
from benchmarks.calcium_cells import SETS, Cells, cells_of
from benchmarks.calcium_scores import Found, scores
from pyro_lvm.diagnostics import spread

__all__ = ["METHODS", "main", "markdown"]

RESULTS = Path(__file__).parent / "results" / "calcium.json"
METHODS: Mapping[str, Callable[[Cells, int, int | None], Found]] = {
    **{name: partial(calcium_oasis.run, name) for name in calcium_oasis.METHODS},
    **calcium_guides.METHODS,
    **calcium_guides.WITH_BINDING,
}

Scores = Mapping[str, Sequence[float]]
"""Values by cell, or one for the method, by the names of columns."""


def main() -> None:
    """Run what is not yet done and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--root", type=Path, help="folder of the real recordings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each method's own number")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(RESULTS if options.save else None)
    for name in options.sets:
        cells = cells_of(name, options.root)
        found = {
            method: [
                kept.scores(name, cells, method, seed, options.steps)
                for seed in range(1 if method in calcium_oasis.METHODS else options.seeds)
            ]
            for method in options.methods
            if not (cells.simulated and method in calcium_guides.WITH_BINDING)
        }
        print(f"## {name}, {len(cells.traces)} cells\n\n{markdown(found)}\n")
        print(f"The {len(cells.test)} test cells\n\n{markdown(found, cells.test)}\n")


class Kept:
    """Finished runs, in a file if there is a path."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs = json.loads(path.read_text()) if path and path.is_file() else {}

    def scores(self, name: str, cells: Cells, method: str, seed: int, steps: int | None) -> Scores:
        """Those of a run, now or before."""
        key = f"{name}: {method}, seed {seed}" + (f", {steps} steps" if steps else "")
        if key not in self.runs:
            torch.manual_seed(seed)
            self.runs[key] = scores(METHODS[method](cells, seed, steps), cells)
            if self.path:
                lines = (f"{json.dumps(k)}: {json.dumps(run)}" for k, run in self.runs.items())
                self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        found: Scores = self.runs[key]
        return found


def markdown(found: Mapping[str, Sequence[Scores]], cells: Sequence[int] | None = None) -> str:
    """One line a method: median and quartiles over cells, of the mean over seeds.

    Args:
        found: scores of each method by seed.
        cells: which cells; all by default.
    """
    columns = list(dict.fromkeys(c for runs in found.values() for run in runs for c in run))
    lines = [f"| | {' | '.join(columns)} |", "|" + " --- |" * (len(columns) + 1)]
    for method, runs in found.items():
        shown = [_cell([run[c] for run in runs if c in run], cells) for c in columns]
        lines.append(f"| {method} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _cell(runs: Sequence[Sequence[float]], cells: Sequence[int] | None) -> str:
    if not runs:
        return ""
    values = torch.tensor(runs).mean(0)
    if len(values) == 1:
        return f"{values.item():.3g}"
    return str(spread(values if cells is None else values[list(cells)]))


if __name__ == "__main__":
    main()
