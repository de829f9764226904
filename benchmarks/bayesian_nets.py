"""Bayesian networks: what their predictions are worth, and how few weights they need.

- "regression": concrete from 150 rows, by objective, beside ensembles and NUTS.
- "classification": 300 digits of MNIST, which is read from the folder PYRO_LVM_DATA.
- "digits", "rows", "sparse", "text": weights that are kept, of 8 by 8 digits, of an LSTM that
  reads them row by row, of MNIST, of the Brown corpus in the folder BROWN_CORPUS.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it goes
on with the others. :mod:`benchmarks.bayesian_picture` draws what a network of one covariate is
unsure of.

    PYRO_LVM_DATA=folder BROWN_CORPUS=folder python -m benchmarks.bayesian_nets --seeds 3
"""

from __future__ import annotations

from functools import partial

from benchmarks import (
    bayesian_classification,
    bayesian_regression,
    sparse_digits,
    sparse_mnist,
    sparse_rows,
    sparse_text,
)
from benchmarks.suite import Suite
from benchmarks.tables import markdown, mean_and_deviation

__all__ = ["SUITE"]

PARTS = {
    "regression": bayesian_regression,
    "classification": bayesian_classification,
    "digits": sparse_digits,
    "rows": sparse_rows,
    "sparse": sparse_mnist,
    "text": sparse_text,
}
SUITE = Suite(
    "bayesian_nets",
    __doc__,
    PARTS,
    tables=dict.fromkeys(PARTS, partial(markdown, cell=mean_and_deviation)),
)


if __name__ == "__main__":
    SUITE.main()
