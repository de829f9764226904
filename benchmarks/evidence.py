"""Estimates of log p(x) against the truth, and how honest their standard errors are.

Each model makes data of its own, each datum is estimated several times, and the estimates are
held against the exact evidence: mean error, root mean square, and the share within two standard
errors of the truth, which is 95 % for an honest one. Bounds from both sides are of the same data.
Prints one table. Finished runs are kept in a file in ``results``: started again, it goes on with
the others.

    python -m benchmarks.evidence --seeds 3
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.command_line import parser_of
from benchmarks.evidence_models import MODELS, Case
from benchmarks.kept import outcome
from pyro_lvm.diagnostics import AIS, SMC, LogEvidence, bidirectional, log_evidence

__all__ = ["METHODS", "main", "run"]

RESULTS = Path(__file__).parent / "results"
NUM_DATA, NUM_TIMES = 40, 5
ANNEALED = AIS(num_temperatures=100, num_leapfrog=3)
POPULATIONS = SMC(num_temperatures=50, num_leapfrog=3, num_particles=4)

Estimate = Callable[[Case, Tensor, Tensor], tuple[Tensor, Tensor, float]]


def _weighted(guide: int) -> Estimate:
    def estimate(case: Case, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, float]:
        program = list(case.guides.values())[guide]
        return _parts(log_evidence(case.model, program, x, num_samples=1000))

    return estimate


def _annealed(method: AIS, num_samples: int) -> Estimate:
    def estimate(case: Case, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, float]:
        return _parts(log_evidence(case.model, None, x, method=method, num_samples=num_samples))

    return estimate


def _parts(found: LogEvidence) -> tuple[Tensor, Tensor, float]:
    return found.value, found.standard_error, float((found.khat > 0.7).double().mean())


def _from_above(method: AIS, num_samples: int) -> Estimate:
    def estimate(case: Case, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, float]:
        how: dict[str, Any] = {"method": method, "num_samples": num_samples}
        found = bidirectional(case.model, None, x, latents={"z": z}, **how)
        return found.upper, found.upper_error, float("nan")

    return estimate


METHODS: dict[str, Estimate] = {
    "IWAE, 1000 draws, wide guide": _weighted(0),
    "IWAE, 1000 draws, poor guide": _weighted(1),
    "AIS, 32 chains": _annealed(ANNEALED, 32),
    "SMC, 24 populations of 4": _annealed(POPULATIONS, 24),
    "reverse AIS, 32 chains": _from_above(ANNEALED, 32),
    "reverse SMC, 24 populations of 4": _from_above(POPULATIONS, 24),
}
RUNS = [(model, method) for model in MODELS for method in METHODS]


@torch.no_grad()
def run(name: str, seed: int, num_data: int | None = None) -> dict[str, float]:
    """Estimate the evidence of every datum several times by one method."""
    model, method = name.split(": ")
    pyro.set_rng_seed(seed)
    case = MODELS[model](num_data or NUM_DATA)
    x, z = (part.repeat(NUM_TIMES, 1) for part in (case.x, case.z))
    start = perf_counter()
    value, error, khat = METHODS[method](case, x, z)
    seconds = perf_counter() - start
    off = value - case.exact.repeat(NUM_TIMES)
    return {
        "error": off.mean().item(),
        "rms": off.square().mean().sqrt().item(),
        "standard_error": error.mean().item(),
        "coverage": (off.abs() <= 2 * error).double().mean().item(),
        "khat_high": khat,
        "seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-data", type=int, help="of each model; by default 40")
    parser.add_argument("--no-save", action="store_true", help="keep and write nothing")
    options = parser.parse_args(arguments)
    path = None if options.no_save else RESULTS / "evidence.json"
    this = {"evidence": sys.modules[__name__]}
    found = {
        f"{model}: {method}": [
            outcome(
                this, path, "evidence", f"{model}: {method}", seed, options.num_data, unit="data"
            )
            for seed in range(options.seeds)
        ]
        for model, method in RUNS
    }
    print(_table(found), flush=True)


def _table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    titles = [
        "model",
        "method",
        "mean error",
        "root mean square error",
        "standard error",
        "within 2 standard errors",
        "k-hat above 0.7",
        "seconds",
    ]
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    for name, results in found.items():
        model, method = name.split(": ")
        error = [result["error"] for result in results]
        spread = stdev(error) if len(error) > 1 else 0.0
        rest = {key: mean(result[key] for result in results) for key in results[0]}
        high = "" if rest["khat_high"] != rest["khat_high"] else f"{rest['khat_high']:.0%}"
        cells = [
            model,
            method,
            f"{mean(error):+.4f} ± {spread:.4f}",
            f"{rest['rms']:.4f}",
            f"{rest['standard_error']:.4f}",
            f"{rest['coverage']:.1%}",
            high,
            f"{rest['seconds']:.1f}",
        ]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
