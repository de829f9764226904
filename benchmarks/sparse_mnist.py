"""How many weights of a classifier of MNIST are needed, by prior and by estimate of the KL.

A 784-100-10 network on all training digits, judged on all test digits. "normal",
"log_uniform" and "ard" take the divergence at draws. The point estimate keeps everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pyro
from torch import Tensor

from benchmarks.sparse_networks import Plan, accuracy, compressed, maximum
from pyro_lvm.data import mnist
from pyro_lvm.models import BayesianMLP

__all__ = ["RUNS", "run"]

RUNS = {
    "point estimate": ("normal", ""),
    "normal": ("normal", "draws"),
    "log_uniform": ("log_uniform", "draws"),
    "ard": ("ard", "draws"),
    "log_uniform, closed form": ("log_uniform", "closed form"),
    "ard, closed form": ("ard", "closed form"),
}
HIDDEN, BATCH, STEPS, RATE = (100,), 200, 2500, 5e-3
PIXEL = 0.3081  # the standard deviation of all pixels

Pairs = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Pairs, Pairs]:
    """Training and test pictures, with their classes."""
    data = mnist(binarization=None)
    return (data.train / PIXEL, data.labels["train"]), (data.test / PIXEL, data.labels["test"])


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left."""
    pyro.set_rng_seed(seed)
    train, test = digits()
    prior, by = RUNS[name]
    plan = Plan(steps or STEPS, BATCH, RATE)
    model = BayesianMLP(train[0].shape[1], HIDDEN, 10, prior=prior, num_data=len(train[0]))
    if not by:
        return {"accuracy": accuracy(model, maximum(model, train, plan), test)}
    return compressed(model, train, test, plan, by, layers)


def layers(left: Mapping[str, Tensor]) -> dict[str, float]:
    """Shares of the weights kept, inputs (with the bias) and hidden units that are read."""
    shares = {f"kept_{name}": (w != 0).double().mean().item() for name, w in left.items()}
    first, *_, last = (w != 0 for w in left.values())
    return shares | {
        "inputs": float(first.any(0).sum()),
        "hidden units": float(last[:, :-1].any(0).sum()),
    }
