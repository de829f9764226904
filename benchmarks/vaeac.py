"""What VAEAC is worth: on a table with known conditionals, and on pictures with a half missing.

- "gaussian": bounds, latent and intervals beside the exact answers.
- "pictures": digits in-painted, beside a VAE trained by MIWAE.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.vaeac gaussian pictures --seeds 3
    python -m benchmarks.vaeac pictures --seeds 0 --picture
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import inpainting, kept, not_miwae, vaeac_gaussian
from benchmarks.adversarial import by_seed, markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, Any] = {
    "gaussian": vaeac_gaussian,
    "pictures": inpainting,
    "not at random": not_miwae,
}


outcome = partial(kept.outcome, PARTS)
"""What a run found, now or before, by the file of finished runs if there is one."""


def main() -> None:
    """Run what is not yet done, print the tables, draw the picture if it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="in place of each run's own number")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--picture", action="store_true", help="of digits, trained anew")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    pyro.enable_validation(False)
    path = RESULTS / "vaeac.json" if options.save else None
    for part in options.parts if options.seeds else ():
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        print(f"## {part}\n\n{markdown(outcomes, by_seed)}\n")
    if options.picture:
        inpainting.picture(options.steps).savefig(RESULTS / "vaeac_pictures.png", dpi=80)


if __name__ == "__main__":
    main()
