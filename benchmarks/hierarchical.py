"""What auxiliary variables, ladders, covariates and labels are worth.

- "gap": an auxiliary variable on a posterior with two modes, by quadrature.
- "digits": one, two and five layers, bottom-up and ladder, by test log p(x) and KL of layers.
- "mnist": the same on larger pictures, which are read from the folder PYRO_LVM_DATA.
- "sources": iVAE and VAE on sources with known latents, by correlation.
- "labels", "mnist labels": digits with 100 labels, by test error.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.hierarchical gap digits mnist sources labels "mnist labels" --seeds 3
"""

from __future__ import annotations

from benchmarks import (
    hierarchical_digits,
    hierarchical_gap,
    hierarchical_labels,
    hierarchical_mnist,
    hierarchical_mnist_labels,
    hierarchical_sources,
    hierarchical_training,
)
from benchmarks.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    "hierarchical",
    __doc__,
    {
        "gap": hierarchical_gap,
        "digits": hierarchical_digits,
        "mnist": hierarchical_mnist,
        "sources": hierarchical_sources,
        "labels": hierarchical_labels,
        "mnist labels": hierarchical_mnist_labels,
    },
    tables={"digits": hierarchical_training.table, "mnist": hierarchical_training.table},
)


if __name__ == "__main__":
    SUITE.main()
