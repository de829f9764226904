"""Where the time of a step goes: matrix products, the rest of the kernels, and Python.

Shares of the CPU time that torch's profiler sees in the contenders of ``peers`` that are its
own. A product is MKL's in all of them, so its share is what no way of writing the step can
lower.

    python -m benchmarks.peers_profile --cases "MNIST-size VAE" --particles 5
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pyro
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.command_line import parser_of
from benchmarks.peers import CASES
from benchmarks.peers_steps import OURS, Step, steps

__all__ = ["main", "shares"]

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
CONTENDERS = (*OURS, "by hand", "by hand, compiled")
STEPS = 20


def shares(step: Step) -> dict[str, float]:
    """Of the time of a step, by kind; they add up to 1."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(STEPS):
            step()
    found = {"matrix products": 0.0, "compiled kernels": 0.0, "other": 0.0}
    for event in record.key_averages():
        found[_kind(event.key)] += event.self_cpu_time_total
    total = sum(found.values())
    return {kind: time / total for kind, time in found.items()}


def _kind(name: str) -> str:
    if name in PRODUCTS:
        return "matrix products"
    return "compiled kernels" if "CompiledFxGraph" in name else "other"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["MNIST-size VAE"])
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--backend", default="inductor", help="of our compiled step")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    warnings.simplefilter("ignore")
    print("| model | step | matrix products | compiled kernels | other |\n|" + " --- |" * 5)
    for name in options.cases:
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        made = steps(CASES[name](), options.particles, options.backend)
        for contender in (c for c in CONTENDERS if c in made):
            cells = " | ".join(f"{share:.0%}" for share in shares(made[contender]).values())
            print(f"| {name}, K = {options.particles} | {contender} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
