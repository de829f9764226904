"""Guides as proposals of Metropolis-Hastings, where the answer is known, beside other samplers.

- "proposals": flows trained by reverse KL, symmetric KL and the acceptance rate, on four densities.
- "samplers": NUTS and HMC of Pyro, and random walks, on the same.
- "samples": a target given by samples, and a discriminator in place of the densities.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others. The picture is trained anew.

    python -m benchmarks.acceptance proposals samplers samples --seeds 3
    python -m benchmarks.acceptance proposals --seeds 0 --picture
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import acceptance_proposals, acceptance_samplers, acceptance_samples, kept
from benchmarks.tables import by_seed, markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "proposals": acceptance_proposals,
    "samplers": acceptance_samplers,
    "samples": acceptance_samples,
}


outcome = partial(kept.outcome, PARTS)
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done, print the tables, draw the picture that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each run's own number")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    path = RESULTS / "acceptance.json" if options.save else None
    for part in options.parts:
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        if options.seeds:
            print(f"## {part}\n\n{markdown(outcomes, by_seed)}\n", flush=True)
    if options.picture:
        figure = acceptance_proposals.picture(options.steps)
        figure.savefig(RESULTS / "acceptance.png", dpi=80)


if __name__ == "__main__":
    main()
