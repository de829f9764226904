"""What semi-implicit guides and priors are worth, where the answer is known, and their cost.

- "plane": four densities on the plane, by the divergence to them.
- "ring": a prior of eight modes, learned as noise through a network, by its likelihood.
- "regression": weights of a logistic regression on real data, beside NUTS.
- "mnist": priors of a VAE: N(0, I), VampPrior, and those of DSIVI, by test log p(x).
- "draws": from 0 to 10^6 mixing draws, where the bound is known.
- "cost": time and memory of a step for J = 1, 10, 100, 1000, beside plain PyTorch.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others. Pictures are trained anew, best with fewer steps.

    python -m benchmarks.semi_implicit plane ring regression draws cost --seeds 3
    python -m benchmarks.semi_implicit plane ring regression --seeds 0 --steps 1500 --pictures
    PYRO_LVM_DATA=folder python -m benchmarks.semi_implicit mnist --seeds 3
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import (
    kept,
    many_draws,
    mnist_priors,
    plane,
    regression_weights,
    ring,
    semi_implicit_cost,
)
from benchmarks.adversarial import by_seed, markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "plane": plane,
    "ring": ring,
    "regression": regression_weights,
    "mnist": mnist_priors,
    "draws": many_draws,
    "cost": semi_implicit_cost,
}
DRAWN = ("plane", "ring", "regression")


outcome = partial(kept.outcome, PARTS)
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done, print the tables, draw the pictures that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each run's own number")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    path = RESULTS / "semi_implicit.json" if options.save else None
    for part in options.parts:
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        if options.seeds:
            print(f"## {part}\n\n{markdown(outcomes, by_seed)}\n")
        if options.pictures and part in DRAWN:
            figure = PARTS[part].picture(options.steps)
            figure.savefig(RESULTS / f"semi_implicit_{part}.png", dpi=80)


if __name__ == "__main__":
    main()
