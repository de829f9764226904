"""How few weights and gates an LSTM needs to classify 8 by 8 digits, row by row.

64 units, 400 passes over 1300 training digits, judged on 397 test digits. "W" prunes weights
alone, "W+G+N" also inputs, units and gates by group variables. A gate is live if it reads
anything, a unit if its state is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyro
from torch import Tensor

from benchmarks.sparse_digits import digits
from benchmarks.sparse_networks import Plan, accuracy, compressed, maximum
from pyro_lvm.models import BayesianLSTM

__all__ = ["RUNS", "gates", "run"]

RUNS = {
    "point estimate": ("normal", False, ""),
    "W, log_uniform": ("log_uniform", False, "closed form"),
    "W+G+N, log_uniform": ("log_uniform", True, "closed form"),
}
PIXELS, HIDDEN, BATCH, STEPS, RATE = 8, 64, 100, 5200, 5e-3


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left."""
    pyro.set_rng_seed(seed)
    train, test = ((x.unflatten(1, (-1, PIXELS)), y) for x, y in digits())
    prior, groups, by = RUNS[name]
    plan = Plan(steps or STEPS, BATCH, RATE)
    model = BayesianLSTM(PIXELS, HIDDEN, 10, groups=groups, prior=prior, num_data=len(train[0]))
    if not by:
        return {"accuracy": accuracy(model, maximum(model, train, plan), test)}
    return compressed(model, train, test, plan, by, gates)


def gates(left: Mapping[str, Tensor]) -> dict[str, float]:
    """How many gates, of 4 for each unit, and how many units are live."""
    size = len(left["w1"]) // 4
    reads, output = left["w1"][:, :-1] != 0, left["w2"][:, :-1] != 0
    units = reads[:, -size:].any(0) | output.any(0)
    return {"gates": float(reads.any(1).sum()), "units": float(units.sum())}
