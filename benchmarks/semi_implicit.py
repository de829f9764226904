"""What semi-implicit guides and priors are worth, where the answer is known, and their cost.

- "plane": four densities on the plane, by the divergence to them.
- "ring": a prior of eight modes, learned as noise through a network, by its likelihood.
- "regression": weights of a logistic regression on real data, beside NUTS.
- "mnist": priors of a VAE: N(0, I), VampPrior, and those of DSIVI, by test log p(x).
- "draws": from 0 to 10^6 mixing draws, where the bound is known.
- "cost": time and memory of a step for J = 1, 10, 100, 1000, beside plain PyTorch.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others. Pictures are trained anew, best with fewer steps.

    python -m benchmarks.semi_implicit plane ring regression draws cost --seeds 3
    python -m benchmarks.semi_implicit plane ring regression --seeds 0 --steps 1500 --picture
    PYRO_LVM_DATA=folder python -m benchmarks.semi_implicit mnist --seeds 3
"""

from __future__ import annotations

from benchmarks import (
    many_draws,
    mnist_priors,
    plane,
    regression_weights,
    ring,
    semi_implicit_cost,
)
from benchmarks.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    "semi_implicit",
    __doc__,
    {
        "plane": plane,
        "ring": ring,
        "regression": regression_weights,
        "mnist": mnist_priors,
        "draws": many_draws,
        "cost": semi_implicit_cost,
    },
)


if __name__ == "__main__":
    SUITE.main()
