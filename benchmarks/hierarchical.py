"""What auxiliary variables, ladders, covariates and labels are worth.

- "gap": an auxiliary variable on a posterior with two modes, by quadrature.
- "digits": one, two and five layers, bottom-up and ladder, by test log p(x) and KL of layers.
- "sources": iVAE and VAE on sources with known latents, by correlation.
- "labels": digits with 100 labels, by test error.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.hierarchical gap digits sources labels --seeds 3
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
    hierarchical_sources,
    kept,
)
from benchmarks.adversarial import by_seed, markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "gap": hierarchical_gap,
    "digits": hierarchical_digits,
    "sources": hierarchical_sources,
    "labels": hierarchical_labels,
}


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
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        print(f"## {part}\n\n{markdown(outcomes, by_seed)}\n", flush=True)


if __name__ == "__main__":
    main()
