"""Bayesian networks: what their predictions are worth, and how few weights they need.

- "regression": concrete from 150 rows, by objective, beside ensembles and NUTS.
- "classification": 300 digits of MNIST, which is read from the folder PYRO_LVM_DATA.
- "digits", "rows", "sparse", "text": weights that are kept, of 8 by 8 digits, of an LSTM that
  reads them row by row, of MNIST, of the Brown corpus in the folder BROWN_CORPUS.

Prints one table for each; with ``--picture`` it draws what a network of one covariate is unsure
of. Finished runs are kept in a file in ``results``: started again, it goes on with the others.

    PYRO_LVM_DATA=folder python -m benchmarks.bayesian_nets regression sparse --seeds 0 1 2
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import (
    bayesian_classification,
    bayesian_picture,
    bayesian_regression,
    kept,
    sparse_digits,
    sparse_mnist,
    sparse_rows,
    sparse_text,
)
from benchmarks.tables import markdown, mean_and_deviation

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "regression": bayesian_regression,
    "classification": bayesian_classification,
    "digits": sparse_digits,
    "rows": sparse_rows,
    "sparse": sparse_mnist,
    "text": sparse_text,
}

outcome = partial(kept.outcome, PARTS)
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", help="some of them, by name")
    parser.add_argument("--steps", type=int, help="in place of each run's own number")
    parser.add_argument("--picture", action="store_true", help="draw the pictures")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    if options.picture:
        bayesian_picture.save(RESULTS)
    path = RESULTS / "bayesian_nets.json" if options.save else None
    for part in options.parts:
        outcomes: dict[str, list[Any]] = {name: [] for name in options.runs or PARTS[part].RUNS}
        for seed in options.seeds:
            for name, runs in outcomes.items():
                runs.append(outcome(path, part, name, seed, options.steps))
        print(f"## {part}\n\n{markdown(outcomes, mean_and_deviation)}\n", flush=True)


if __name__ == "__main__":
    main()
