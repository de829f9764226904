"""Variational Gibbs inference: models of complete rows, learned from rows with holes.

- "toy": the factor analysis of the paper, beside EM, from 16.6 % to 83.3 % missing.
- "vae": a VAE of digits at 50 % missing, beside the ELBO and MIWAE of what is observed.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it goes
on with the others.

    python -m benchmarks.gibbs toy vae --seeds 0 1 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import gibbs_toy, gibbs_vae, kept
from benchmarks.adversarial import markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results" / "gibbs.json"
PARTS: dict[str, Any] = {"toy": gibbs_toy, "vae": gibbs_vae}


outcome = partial(kept.outcome, PARTS, unit="epochs")
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="in place of each run's own number")
    parser.add_argument("--only", nargs="+", help="names of runs, all if left out")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    path = RESULTS if options.save else None
    for part in options.parts:
        names = options.only or list(PARTS[part].RUNS)
        outcomes = {
            name: [outcome(path, part, name, seed, options.epochs) for seed in options.seeds]
            for name in names
        }
        print(f"## {part}\n\n{markdown(outcomes, _by_seed)}\n")


def _by_seed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    main()
