"""What representations games against critics learn, beside those of variational bounds.

- "digits": VAE, ALI, PAGAN and VAE-GAN on digits, judged without their critics.
- "causal": DEAR beside supervised VAEs where the causal graph is known.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.representations digits causal --seeds 3
"""

from __future__ import annotations

from functools import partial

from benchmarks import representations_causal, representations_digits
from benchmarks.suite import Suite
from benchmarks.tables import markdown, mean_and_deviation

_TABLE = partial(markdown, cell=mean_and_deviation)

__all__ = ["SUITE"]

SUITE = Suite(
    "representations",
    __doc__,
    {
        "digits": representations_digits,
        "causal": representations_causal,
    },
    tables={"digits": _TABLE, "causal": _TABLE},
)


if __name__ == "__main__":
    SUITE.main()
