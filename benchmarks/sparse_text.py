"""How few words, gates and weights an LSTM needs to tell imaginative prose from other.

Passages of 50 words of the Brown corpus, of which the user has the files (``benchmarks.brown``);
400 files to train on, 100 for the test. 3000 words of 32 numbers each, 32 units. "W" prunes
weights alone, "W+G+N" also words, inputs, units and gates by group variables.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyro
from torch import Tensor

from benchmarks.brown import texts
from benchmarks.sparse_networks import Plan, accuracy, compressed, maximum
from benchmarks.sparse_rows import gates
from pyro_lvm.models import BayesianLSTM

__all__ = ["RUNS", "run", "words"]

RUNS = {
    "point estimate": ("normal", False, ""),
    "W, log_uniform": ("log_uniform", False, "closed form"),
    "W+G+N, log_uniform": ("log_uniform", True, "closed form"),
}
LENGTH, VOCABULARY, FEATURES, HIDDEN = 50, 3000, 32, 32
BATCH, STEPS, RATE = 100, 1500, 5e-3


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left."""
    pyro.set_rng_seed(seed)
    train, test, _ = texts(LENGTH, VOCABULARY)
    prior, groups, by = RUNS[name]
    plan = Plan(steps or STEPS, BATCH, RATE)
    model = BayesianLSTM(
        FEATURES,
        HIDDEN,
        2,
        vocabulary=VOCABULARY,
        groups=groups,
        prior=prior,
        num_data=len(train[0]),
    )
    if not by:
        return {"accuracy": accuracy(model, maximum(model, train, plan), test)}
    return compressed(model, train, test, plan, by, words)


def words(left: Mapping[str, Tensor]) -> dict[str, float]:
    """Words that are read, live gates and units, and compression beside the words."""
    recurrent = [left["w1"], left["w2"]]
    total, live = (sum(int(count(w)) for w in recurrent) for count in (Tensor.numel, _num_live))
    read = {"words": float((left["words"] != 0).any(1).sum())}
    return read | gates(left) | {"compression without words": total / max(1, live)}


def _num_live(matrix: Tensor) -> int:
    return int(matrix.count_nonzero())
