"""Can the adversarial objectives be trusted, and how good are they: three exact judges, and AIS.

- "known_kl": the divergence that a trained discriminator reports, where it is known.
- "four_points": the toy of the AVB paper, by the exact likelihood.
- "two_modes": a posterior with two modes, by the exact divergence to it.
- "implicit_digits": what importance weights do for an implicit guide on digits, by AIS.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.adversarial known_kl four_points two_modes implicit_digits --seeds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import pyro
import torch

from benchmarks import four_points, implicit_digits, kept, known_kl, two_modes

__all__ = ["PARTS", "Outcome", "main", "markdown"]

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "known_kl": known_kl,
    "four_points": four_points,
    "two_modes": two_modes,
    "implicit_digits": implicit_digits,
}

Outcome = kept.Run


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
    path = RESULTS / "adversarial.json" if options.save else None
    for part in options.parts:
        outcomes = {
            name: [outcome(path, part, name, seed, options.steps) for seed in range(options.seeds)]
            for name in PARTS[part].RUNS
        }
        cell = mean_and_deviation if part == "implicit_digits" else by_seed
        print(f"## {part}\n\n{markdown(outcomes, cell)}\n")
    if options.save and "two_modes" in options.parts:
        two_modes.picture().savefig(RESULTS / "adversarial_two_modes.png", dpi=80)


def outcome(path: Path | None, part: str, name: str, seed: int, steps: int | None) -> Outcome:
    """What the run found, now or before."""
    pyro.clear_param_store()
    return kept.outcome(PARTS, path, part, name, seed, steps)


def by_seed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Over the seeds; the standard deviation is that of one seed."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else by_seed(values)


def markdown(
    outcomes: Mapping[str, Sequence[Outcome]], cell: Callable[[Sequence[float]], str] = by_seed
) -> str:
    """One line for each kind of run; in each cell what ``cell`` makes of the values by seed."""
    columns = list(dict.fromkeys(c for runs in outcomes.values() for run in runs for c in run))
    lines = [f"| | {' | '.join(columns)} |", "|" + " --- |" * (len(columns) + 1)]
    for name, runs in outcomes.items():
        cells = [cell([run[c] for run in runs if c in run]) for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
