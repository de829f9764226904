"""Imputation of real tables: errors and intervals of our models beside scikit-learn's methods.

python -m benchmarks.imputation [--tables wine concrete] [--methods miwae k-NN] [--steps 600]

Cells are hidden completely at random. Runs that are in the file of results are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyro
import torch

from benchmarks.imputation_methods import BASELINES, OURS, imputer_of
from benchmarks.imputation_scores import coverage, errors
from benchmarks.imputation_tables import TABLES, hidden

__all__ = ["main", "run", "tables"]

RESULTS = Path(__file__).with_name("results") / "imputation.json"
_IMPUTATIONS = 50
_METHODS = (*BASELINES, *OURS)
_KEY = ("table", "rate", "seed", "method")


def run(table: str, rate: float, seed: int, method: str, steps: int) -> dict[str, Any]:
    """One method on one table with cells hidden: its errors, and intervals if it has any."""
    truth = TABLES[table]()
    cells = hidden(truth, rate, seed)
    holed = truth.mask(cells)
    start = time.process_time()
    scores: dict[str, float] = {}
    if method in BASELINES:
        completed = BASELINES[method](holed, seed)
    else:
        imputer = imputer_of(method, seed, steps)
        completed = imputer.fit_transform(holed)
        scores = coverage(truth, imputer.sample(holed, _IMPUTATIONS), cells)
    scores |= errors(truth, completed, cells)
    key = dict(zip(_KEY, (table, rate, seed, method), strict=True))
    known = {name: score for name, score in scores.items() if score == score}
    return {**key, **known, "cpu_seconds": time.process_time() - start}


def tables(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: one table a score and rate, mean and standard deviation over seeds."""
    for score in ("nrmse", "pfc", "coverage", "width"):
        for rate in sorted({result["rate"] for result in results}):
            at_rate = [r for r in results if r["rate"] == rate and r.get(score, float("nan")) >= 0]
            names = [name for name in TABLES if any(r["table"] == name for r in at_rate)]
            yield f"\n{score}, {rate:.0%} hidden\n"
            yield "| | " + " | ".join(names) + " |"
            yield "| --- |" + " --- |" * len(names)
            for method in _METHODS:
                mine = [r for r in at_rate if r["method"] == method]
                cells = [_cell([r[score] for r in mine if r["table"] == name]) for name in names]
                if mine:
                    yield f"| {method} | " + " | ".join(cells) + " |"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs that are missing, then print all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--methods", nargs="+", default=list(_METHODS), choices=_METHODS)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.2, 0.5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of our models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    results = json.loads(options.results.read_text()) if options.results.is_file() else []
    done = {tuple(result[name] for name in _KEY) for result in results}
    for seed in options.seeds:
        for table in options.tables:
            for rate in options.rates:
                for method in options.methods:
                    if (table, rate, seed, method) not in done:
                        results.append(run(table, rate, seed, method, options.steps))
                        options.results.write_text(json.dumps(results, indent=1) + "\n")
                        print(results[-1], flush=True)
    for line in tables(results):
        print(line)


if __name__ == "__main__":
    main()
