"""MNIST with 100 labels: the runs of ``hierarchical_labels`` on larger pictures, a few epochs."""

from __future__ import annotations

from functools import partial

from benchmarks import hierarchical_labels
from pyro_lvm.data import mnist

__all__ = ["MNIST", "RUNS", "run"]

MNIST = hierarchical_labels.Digits(mnist, 784, 32, 200, 60.0, 3000, 1e-3, every=5)
"""5 passes over the unlabelled digits; the papers train for hundreds."""

RUNS = hierarchical_labels.RUNS
run = partial(hierarchical_labels.run, sizes=MNIST)
