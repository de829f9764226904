"""What auxiliary variables, ladders, covariates and labels are worth.

- "gap": an auxiliary variable on a posterior with two modes, by quadrature.
- "digits": one, two and five layers, bottom-up and ladder, by test log p(x) and KL of layers.
- "mnist": the same on larger pictures, which are read from the folder PYRO_LVM_DATA.
- "sources": iVAE and VAE on sources with known latents, by correlation.
- "labels", "mnist labels": digits with 100 labels, by test error.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.hierarchical gap digits mnist sources labels "mnist labels" --seeds 3
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import (
    hierarchical_digits,
    hierarchical_gap,
    hierarchical_labels,
    hierarchical_mnist,
    hierarchical_mnist_labels,
    hierarchical_sources,
    hierarchical_training,
    kept,
)
from benchmarks.adversarial import markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "gap": hierarchical_gap,
    "digits": hierarchical_digits,
    "mnist": hierarchical_mnist,
    "sources": hierarchical_sources,
    "labels": hierarchical_labels,
    "mnist labels": hierarchical_mnist_labels,
}
TABLES = {"digits": hierarchical_training.table, "mnist": hierarchical_training.table}


outcome = partial(kept.outcome, PARTS)
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each run's own number")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    path = RESULTS / "hierarchical.json" if options.save else None
    for part in options.parts:
        outcomes: dict[str, list[Any]] = {name: [] for name in PARTS[part].RUNS}
        for seed in range(options.seeds):
            for name, runs in outcomes.items():
                runs.append(outcome(path, part, name, seed, options.steps))
        table = TABLES.get(part, markdown)
        print(f"## {part}\n\n{table(outcomes)}\n", flush=True)


if __name__ == "__main__":
    main()
