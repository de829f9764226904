"""One training step, eager and compiled, against Pyro, PyTorch by hand, NumPyro and pythae.

A step is zero_grad, loss and backward, without the optimiser, on one CPU thread and the same
networks, data and K. The contenders take turns in one process; every ratio is taken within a
round. NumPyro and pythae have their columns where they are installed. Starts anew, or with
``--resume`` goes on with the runs in ``results/peers.json``.

    python -m benchmarks.peers --rounds 15
"""

from __future__ import annotations

import argparse
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pyro
import torch

from benchmarks.command_line import parser_of
from benchmarks.kept import Run, finished, found
from benchmarks.peers_answers import answers
from benchmarks.peers_case import Case
from benchmarks.peers_factors import factors
from benchmarks.peers_models import ladder, markov
from benchmarks.peers_rounds import first_calls, timed_in_turns
from benchmarks.peers_states import states
from benchmarks.peers_steps import steps
from benchmarks.peers_table import page
from benchmarks.peers_vae import vae

__all__ = ["CASES", "main", "measure"]

RESULTS = Path(__file__).parent / "results"
CASES: dict[str, Callable[[], Case]] = {
    "tiny VAE": partial(vae, "tiny"),
    "small VAE": partial(vae, "small"),
    "MNIST-size VAE": partial(vae, "mnist"),
    "five layers": ladder,
    "state space": states,
    "hidden Markov": markov,
    "factor model": factors,
    "item response": answers,
}


def measure(name: str, num_particles: int, rounds: int, backend: str = "inductor") -> Run:
    """Milliseconds of every contender in every round, and seconds to its first step."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    torch.compiler.reset()
    case = CASES[name]()
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro's and torch's own, of the deprecated jit
        made = steps(case, num_particles, backend)
        first = first_calls(made)
        times = timed_in_turns(made, rounds)
    return {"title": case.title, "first": first, "ms": times}


def environment() -> Run:
    """What it was measured with."""
    packages = ("torch", "pyro-ppl", "jax", "numpyro", "pythae")
    return {
        "Python": platform.python_version(),
        "threads": torch.get_num_threads(),
        **{package: found for package in packages if (found := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="inductor", help="of our compiled step")
    parser.add_argument("--resume", action="store_true", help="keep the runs in the file")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = RESULTS / "peers.json" if options.save else None
    if path and not options.resume:
        path.unlink(missing_ok=True)
    runs = {"environment": found(path, "environment", environment)}
    empty = TemporaryDirectory()  # no compiled graph is there before
    with empty as cache, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        for name in options.cases:
            for num_particles in [1] if name == "hidden Markov" else options.particles:
                key = f"{name}, K = {num_particles}"
                run = partial(measure, name, num_particles, options.rounds, options.backend)
                runs[key] = found(path, key, run)
                print(key, flush=True)
    text = page(finished(path) or runs)
    print(text)
    if path:
        path.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
