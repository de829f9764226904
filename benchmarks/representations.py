"""What representations games against critics learn, beside those of variational bounds.

- "digits": VAE, ALI, PAGAN and VAE-GAN on digits, judged without their critics.
- "causal": DEAR beside supervised VAEs where the causal graph is known.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.representations digits causal --seeds 3
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import kept, representations_causal, representations_digits
from benchmarks.adversarial import markdown, mean_and_deviation

__all__ = ["PARTS", "main"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {"digits": representations_digits, "causal": representations_causal}

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
    path = RESULTS / "representations.json" if options.save else None
    for part in options.parts:
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        print(f"## {part}\n\n{markdown(outcomes, mean_and_deviation)}\n", flush=True)


if __name__ == "__main__":
    main()
