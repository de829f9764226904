"""A whole training step, Adam's update included, against Pyro, PyTorch by hand and NumPyro.

Loss, gradient, update, and the loss as a number in Python, on one CPU thread and the same
networks, data and K. The contenders take turns in one process; every ratio is taken within a
round. NumPyro has its column where it is installed.

    python -m benchmarks.whole_steps
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor
from torch.optim import Adam

from benchmarks.command_line import parser_of
from benchmarks.kept import Run, finished, found
from benchmarks.peers import environment
from benchmarks.peers_case import Case
from benchmarks.peers_numpyro import Trained, is_installed
from benchmarks.peers_rounds import first_calls, timed_in_turns
from benchmarks.peers_steps import Step
from benchmarks.peers_table import each, shown
from benchmarks.peers_vae import vae
from pyro_lvm.objectives import IWAE
from pyro_lvm.training import CompiledLoss, CompiledStep

__all__ = ["OURS", "contenders", "main", "measure"]

RESULTS = Path(__file__).parent / "results"
SIZES = {"tiny VAE": "tiny", "small VAE": "small", "MNIST-size VAE": "mnist"}
OURS, PEERS = "ours, compiled", ("by hand", "by hand, compiled loss", "Pyro", "NumPyro")
COLUMNS = (OURS, "ours, compiled loss", "ours", *PEERS)
LEARNING_RATE = 1e-4


def contenders(case: Case, num_particles: int, backend: str = "inductor") -> dict[str, Step]:
    """Steps by column; torch's all move the same parameters.

    Args:
        case: a VAE.
        num_particles: K.
        backend: of the compiled ones; "graph" for tests, without a compiler.
    """
    objective: Any = IWAE(num_particles)
    compiled = CompiledLoss(objective, case.model, case.guide, backend=backend)
    by_hand: Any = partial(case.by_hand, num_particles)  # type: ignore[arg-type]
    by_torch = "inductor" if backend == "inductor" else "eager"
    whole = CompiledStep(compiled, _adam(case))
    made: dict[str, Step] = {
        OURS: lambda: whole(case.x).tolist()[0],
        "ours, compiled loss": _stepping(case, partial(compiled, case.x)),
        "ours": _stepping(case, partial(objective(case.model, case.guide), case.x)),
        "by hand": _stepping(case, by_hand),
        "by hand, compiled loss": _stepping(
            case, torch.compile(by_hand, dynamic=False, backend=by_torch)
        ),
        "Pyro": partial(_svi(case, num_particles).step, case.x),
    }
    return made | ({"NumPyro": _numpyro(case, num_particles)} if is_installed() else {})


def _adam(case: Case) -> Adam:
    return Adam(case.modules.parameters(), lr=LEARNING_RATE, fused=True)


def _stepping(case: Case, loss: Callable[[], Tensor]) -> Step:
    optimizer = _adam(case)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(value.detach())

    return step


def _svi(case: Case, num_particles: int) -> SVI:
    """With Pyro's RenyiELBO for K > 1, the same bound."""
    elbo = Trace_ELBO if num_particles == 1 else partial(RenyiELBO, alpha=0)
    bound = elbo(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
    return SVI(case.model, case.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), bound)


def _numpyro(case: Case, num_particles: int) -> Step:
    """Its updates return no loss."""
    trained = Trained("vae", case.modules, "IWAE", num_particles, LEARNING_RATE)

    def step() -> float:
        trained.step(case.x)
        return float("nan")

    return step


def measure(name: str, num_particles: int, rounds: int, backend: str = "inductor") -> Run:
    """Milliseconds of every contender in every round, and seconds to its second step."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    torch.compiler.reset()
    case = vae(SIZES[name])
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = contenders(case, num_particles, backend)
        made[OURS]()  # Adam makes its state
        first = first_calls(made)
        times = timed_in_turns(made, rounds)
    return {"title": case.title, "first": first, "ms": times}


def page(runs: dict[str, Run]) -> str:
    """Markdown: ratios, and the times that they are of."""
    cases = {key: run for key, run in runs.items() if key != "environment"}
    versions = ", ".join(f"{name} {value}" for name, value in runs["environment"].items())
    ratios = each(cases, COLUMNS[1:], lambda run, peer: shown(run, OURS, peer))
    times = each(cases, COLUMNS, lambda run, name: f"{median(run['ms'][name]):.2f}")
    return (
        f"# One whole training step\n\n`python -m benchmarks.whole_steps`, CPU, {versions}. "
        "Loss, gradient and Adam's update, the loss read; plain gradients, argument checks off. "
        "CPU time of all threads, ratios within a round: median (quartiles); below 1, ours is "
        'faster. "Ours, compiled" is `CompiledStep`, one graph, as `fit(compile=True)` takes '
        'its steps, which reads the gradient\'s norm too; "compiled loss" is `CompiledLoss`, or '
        "torch.compile of the loss by hand, with torch's fused Adam, and so are the others of "
        "torch; Pyro's is SVI with Trace_ELBO at K = 1, RenyiELBO above, NumPyro's one jitted "
        f"update.\n\n## Our compiled step / the other\n\n{ratios}\n\n## Milliseconds\n\n{times}\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="inductor", help="of compiled steps")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = RESULTS / "whole_steps.json" if options.save else None
    if path:
        path.unlink(missing_ok=True)
    runs = {"environment": found(path, "environment", environment)}
    for name in options.cases:
        for num_particles in options.particles:
            run = partial(measure, name, num_particles, options.rounds, options.backend)
            runs[f"{name}, K = {num_particles}"] = found(path, f"{name}, K = {num_particles}", run)
    text = page(finished(path) or runs)
    print(text)
    if path:
        path.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
