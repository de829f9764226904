"""Time and memory of one training step as one size grows: batch, K, J, latents, layers.

A step is zero_grad, loss and backward, without the optimiser, on one CPU thread. The VAE is
64-100-100-16 on a batch of 100, K = 5, by the importance-weighted bound; J is of a semi-implicit
guide of the same sizes, K = 1; layers are of 8 latents each. In chunks are 50 particles, or 100
mixing draws, at a time. Milliseconds of CPU time, and MiB at the peak above what is there
before the step, from the allocator's record.

    python -m benchmarks.scaling --seeds 3
    python -m benchmarks.scaling_page
"""

from __future__ import annotations

from functools import partial

from benchmarks.scaling_axes import AXES
from benchmarks.suite import Suite
from benchmarks.tables import markdown, mean_and_deviation

__all__ = ["SUITE"]

SUITE = Suite(
    "scaling",
    __doc__,
    AXES,
    tables=dict.fromkeys(AXES, partial(markdown, cell=mean_and_deviation)),
    unit="rounds",
)


if __name__ == "__main__":
    SUITE.main()
