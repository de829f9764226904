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
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import (
    hierarchical_digits,
    hierarchical_gap,
    hierarchical_labels,
    hierarchical_sources,
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


def outcome(
    path: Path | None, part: str, name: str, seed: int, steps: int | None
) -> Mapping[str, float]:
    """What the run found, now or before, by the file ``path`` if there is one."""
    key = f"{part}: {name}, seed {seed}" + (f", {steps} steps" if steps else "")
    if key not in (kept := _read(path)):
        found = PARTS[part].run(name, seed, steps)
        kept = _read(path) | {key: found}  # anew: another process may have written meanwhile
        if path:
            path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept[key]


def _read(path: Path | None) -> dict[str, Mapping[str, float]]:
    return json.loads(path.read_text()) if path and path.is_file() else {}


if __name__ == "__main__":
    main()
