"""Can the adversarial objectives be trusted, and how good are they: three exact judges, and AIS.

- "known_kl": the divergence that a trained discriminator reports, where it is known.
- "four_points": the toy of the AVB paper, by the exact likelihood.
- "two_modes": a posterior with two modes, by the exact divergence to it.
- "implicit_digits": what importance weights do for an implicit guide on digits, by AIS.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.adversarial known_kl four_points two_modes implicit_digits --seeds 3
"""

from __future__ import annotations

from functools import partial

from benchmarks import four_points, implicit_digits, known_kl, two_modes
from benchmarks.suite import Suite
from benchmarks.tables import markdown, mean_and_deviation

__all__ = ["SUITE"]

SUITE = Suite(
    "adversarial",
    __doc__,
    {
        "known_kl": known_kl,
        "four_points": four_points,
        "two_modes": two_modes,
        "implicit_digits": implicit_digits,
    },
    tables={"implicit_digits": partial(markdown, cell=mean_and_deviation)},
)


if __name__ == "__main__":
    SUITE.main()
