"""Guides as proposals of Metropolis-Hastings, where the answer is known, beside other samplers.

- "proposals": flows and mixtures trained by reverse KL and the acceptance rate, on four densities.
- "samplers": NUTS and HMC of Pyro, and random walks, on the same.
- "samples": a target given by samples, and a discriminator in place of the densities.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others. The picture is trained anew.

    python -m benchmarks.acceptance proposals samplers samples --seeds 3
    python -m benchmarks.acceptance proposals --seeds 0 --picture
"""

from __future__ import annotations

from benchmarks import acceptance_proposals, acceptance_samplers, acceptance_samples
from benchmarks.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    "acceptance",
    __doc__,
    {
        "proposals": acceptance_proposals,
        "samplers": acceptance_samplers,
        "samples": acceptance_samples,
    },
)


if __name__ == "__main__":
    SUITE.main()
