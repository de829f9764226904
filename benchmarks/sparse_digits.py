"""How many weights of a classifier of 8 by 8 digits are needed, by prior and estimate of the KL.

A 64-300-100-10 network, 400 passes over 1300 training digits, judged on 397 test digits.
"""

from __future__ import annotations

from functools import cache

import pyro
from torch import Tensor

from benchmarks.sparse_mnist import layers
from benchmarks.sparse_networks import Plan, accuracy, compressed, maximum
from pyro_lvm.data import digits as embedded
from pyro_lvm.models import BayesianMLP

__all__ = ["RUNS", "digits", "run"]

RUNS = {
    "point estimate": ("normal", ""),
    "log_uniform, at draws": ("log_uniform", "draws"),
    "ard, at draws": ("ard", "draws"),
    "log_uniform, closed form": ("log_uniform", "closed form"),
    "ard, closed form": ("ard", "closed form"),
}
HIDDEN, BATCH, STEPS, RATE = (300, 100), 100, 5200, 5e-3

Pairs = tuple[Tensor, Tensor]


@cache
def digits() -> tuple[Pairs, Pairs]:
    """Training and test pictures ``(N, 64)``, with their classes."""
    data = embedded(binarization=None)
    pictures = [(data.train, data.labels["train"]), (data.test, data.labels["test"])]
    first, second = ((x.flatten(1), y) for x, y in pictures)
    return first, second


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left."""
    pyro.set_rng_seed(seed)
    train, test = digits()
    prior, by = RUNS[name]
    plan = Plan(steps or STEPS, BATCH, RATE)
    model = BayesianMLP(64, HIDDEN, 10, prior=prior, num_data=len(train[0]))
    if not by:
        return {"accuracy": accuracy(model, maximum(model, train, plan), test)}
    return compressed(model, train, test, plan, by, layers)
