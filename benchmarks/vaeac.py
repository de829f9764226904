"""What VAEAC is worth: on a table with known conditionals, and on pictures with a half missing.

- "gaussian": bounds, latent and intervals beside the exact answers.
- "pictures": digits in-painted, beside a VAE trained by MIWAE.

Prints one table for each. Finished runs are kept in a file in ``results``: started again, it
goes on with the others.

    python -m benchmarks.vaeac gaussian pictures --seeds 3
    python -m benchmarks.vaeac pictures --seeds 0 --picture
"""

from __future__ import annotations

from benchmarks import inpainting, not_miwae, vaeac_gaussian
from benchmarks.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    "vaeac",
    __doc__,
    {
        "gaussian": vaeac_gaussian,
        "pictures": inpainting,
        "not at random": not_miwae,
    },
)


if __name__ == "__main__":
    SUITE.main()
