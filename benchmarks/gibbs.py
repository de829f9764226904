"""Variational Gibbs inference: models of complete rows, learned from rows with holes.

- "toy": the factor analysis of the paper, beside EM, from 16.6 % to 83.3 % missing.
- "vae": a VAE of digits at 50 % missing, beside the ELBO and MIWAE of what is observed.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it goes
on with the others.

    python -m benchmarks.gibbs toy vae --seeds 3
"""

from __future__ import annotations

from functools import partial

from benchmarks import gibbs_toy, gibbs_vae
from benchmarks.suite import Suite
from benchmarks.tables import by_seed, markdown

_TABLE = partial(markdown, cell=partial(by_seed, digits=4))

__all__ = ["SUITE"]

SUITE = Suite(
    "gibbs",
    __doc__,
    {
        "toy": gibbs_toy,
        "vae": gibbs_vae,
    },
    tables={"toy": _TABLE, "vae": _TABLE},
    unit="epochs",
)


if __name__ == "__main__":
    SUITE.main()
