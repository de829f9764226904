"""Variational Gibbs inference: models of complete rows, learned from rows with holes.

- "toy": the factor analysis of the paper, beside EM, from 16.6 % to 83.3 % missing.
- "vae": a VAE of digits at 50 % missing, beside the ELBO and MIWAE of what is observed.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it goes
on with the others.

    python -m benchmarks.gibbs toy vae --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import gibbs_toy, gibbs_vae
from benchmarks.adversarial import markdown

__all__ = ["PARTS", "main", "outcome"]

RESULTS = Path(__file__).parent / "results" / "gibbs.json"
PARTS: dict[str, Any] = {"toy": gibbs_toy, "vae": gibbs_vae}


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


def outcome(
    path: Path | None, part: str, name: str, seed: int, epochs: int | None
) -> Mapping[str, float]:
    """What the run found, now or before, by the file ``path`` if there is one."""
    key = f"{part}: {name}, seed {seed}" + (f", {epochs} epochs" if epochs else "")
    if key not in (kept := _read(path)):
        found = PARTS[part].run(name, seed, epochs)
        kept = _read(path) | {key: found}  # anew: another process may have written meanwhile
        if path:
            path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept[key]


def _by_seed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _read(path: Path | None) -> dict[str, Mapping[str, float]]:
    return json.loads(path.read_text()) if path and path.is_file() else {}


if __name__ == "__main__":
    main()
