"""Which diagnostic catches which fault of a guide, and how often each cries wolf.

Guides that are wrong by a stated amount, and exact ones, of models whose posterior is known.
Each is put to all diagnostics, with data, draws and simulations of its own for each seed: a
fault is caught where the verdict is not "pass". Prints one table of faults and one of exact
guides. Finished runs are kept in a file in ``results``: started again, it goes on with the
others.

    python -m benchmarks.faults --seeds 20 --exact-seeds 200
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from scipy.stats import binomtest
from torch import Tensor

from benchmarks.command_line import parser_of
from benchmarks.faults_planted import EXACT, FAULTS, Planted
from benchmarks.kept import keep
from pyro_lvm.diagnostics import (
    SBC,
    Status,
    collapse_report,
    coverage,
    log_evidence,
    loo_pit,
    predictive_check,
    sbc,
    simulation_based_calibration,
    tarp,
    to_inference_data,
)
from pyro_lvm.diagnostics.chain_quality import chain_quality
from pyro_lvm.diagnostics.thresholds import MAX_TOTAL_VARIATION, total_variation

__all__ = ["DIAGNOSTICS", "SIMULATED", "main", "run"]

RESULTS = Path(__file__).parent / "results" / "faults.json"
NUM_SIMULATIONS, NUM_DRAWS = 500, 99
NUM_SAMPLES = 2500  # as the report
SIGNIFICANCE = 0.05

Program = Any
Caught = dict[str, bool | None]

SIMULATED = ("ranks of latents", "ranks of densities", "coverage", "TARP")
DIAGNOSTICS = (*SIMULATED, "k-hat", "gap", "chains", "collapse", "predictive", "LOO-PIT")


def run(planted: Planted, part: str, seed: int) -> Caught:
    """Which diagnostics of a part do not pass the guide; None where one does not apply."""
    torch.manual_seed(seed)
    pyro.clear_param_store()
    x, guide = planted.data(), planted.guide()
    return PARTS[part](planted.model, guide, x)


def _simulated(model: Program, guide: Program, x: Tensor) -> Caught:
    found = simulation_based_calibration(
        model, guide, x, num_simulations=NUM_SIMULATIONS, num_draws=NUM_DRAWS
    )
    ranks = sbc(found)
    return {
        "ranks of latents": _off(ranks, slice(None, ranks.num_latents)),
        "ranks of densities": _off(ranks, slice(ranks.num_latents, None)),
        "coverage": _caught(coverage(found)),
        "TARP": _caught(tarp(found)),
    }


def _off(ranks: SBC, some: slice) -> bool:
    """The test of some of the quantities alone."""
    p_values = ranks.curves.p_values[some]
    return bool(p_values.min() * len(p_values) < SIGNIFICANCE)


def _on_data(model: Program, guide: Program, x: Tensor) -> Caught:
    evidence = log_evidence(model, guide, x, num_samples=NUM_SAMPLES)
    gap = (evidence.value - evidence.mean_log_weight).mean().item()
    activity = collapse_report(model, guide, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of slow chains: that is what is counted
        chains = to_inference_data(
            model,
            guide,
            x,
            num_samples=NUM_SAMPLES,
            correct="mh",
            posterior_predictive=False,
            prior=False,
            log_likelihood=False,
        )
    return {
        "k-hat": _caught(evidence),
        "gap": total_variation(gap) > MAX_TOTAL_VARIATION,
        "chains": _caught(chain_quality(chains)),
        "collapse": _caught(activity) if activity.activity else None,
    }


def _predictions(model: Program, guide: Program, x: Tensor) -> Caught:
    return {
        "predictive": _caught(predictive_check(model, guide, x)),
        "LOO-PIT": _caught(loo_pit(model, guide, x)),
    }


PARTS: Mapping[str, Callable[[Program, Program, Tensor], Caught]] = {
    "simulations": _simulated,
    "data": _on_data,
    "predictions": _predictions,
}
"""What is put to the same data and guide, each from the same seed."""


def _caught(result: Any) -> bool:
    return bool(result.verdict().status != Status.PASS)


def outcomes(
    path: Path | None,
    name: str,
    planted: Planted,
    seeds: range,
    parts: Iterable[str] = tuple(PARTS),
) -> list[Caught]:
    """Of each seed, now or before."""
    return [
        {
            diagnostic: caught
            for part in parts
            for diagnostic, caught in outcome(path, name, planted, part, seed).items()
        }
        for seed in seeds
    ]


def outcome(path: Path | None, name: str, planted: Planted, part: str, seed: int) -> Caught:
    """Of one part, now or before."""
    key = f"{name}, {part}, seed {seed}"
    done = json.loads(path.read_text()) if path and path.is_file() else {}
    if key not in done:
        done = {key: run(planted, part, seed)}
        if path:
            keep(path, done)
    found: Caught = done[key]
    return found


def row(told: str, caught: list[Caught], interval: bool = False) -> str:
    """One line of a table: how many of the runs each diagnostic caught."""
    cells = [_cell([run.get(name) for run in caught], interval) for name in DIAGNOSTICS]
    return f"| {told} | {' | '.join(cells)} |"


def _cell(caught: list[bool | None], interval: bool) -> str:
    counted = [one for one in caught if one is not None]
    if not counted:
        return ""
    share = f"{sum(counted)}/{len(counted)}"
    if not interval:
        return share
    low, high = binomtest(sum(counted), len(counted)).proportion_ci()
    return f"{share} ({low:.3f} to {high:.3f})"


def table(planted: Mapping[str, Planted], found: Mapping[str, list[Caught]], **how: Any) -> str:
    """Rows of all that was run."""
    head = f"| | {' | '.join(DIAGNOSTICS)} |\n|{' --- |' * (1 + len(DIAGNOSTICS))}"
    rows = [row(planted[name].told, runs, **how) for name, runs in found.items()]
    return "\n".join([head, *rows])


def main() -> None:
    """Run what is not yet done and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--exact-seeds",
        type=int,
        default=200,
        help="of the linear model, for the diagnostics that state how often they are wrong",
    )
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS if options.save else None
    seeds = range(options.seeds)
    faults = {name: outcomes(path, name, case, seeds) for name, case in FAULTS.items()}
    exact = {name: outcomes(path, f"exact {name}", case, seeds) for name, case in EXACT.items()}
    more = range(options.seeds, options.exact_seeds)
    exact["linear"] += outcomes(path, "exact linear", EXACT["linear"], more, ["simulations"])
    print(f"## faults\n\n{table(FAULTS, faults)}\n")
    print(f"## exact guides\n\n{table(EXACT, exact, interval=True)}\n")


if __name__ == "__main__":
    main()
