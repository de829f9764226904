"""Many draws of mixing variables, some of them at a time: memory that does not grow with J.

A mean over J draws is a sum of sums. The first run draws the latents, and hardly a mixing
variable beside. The program runs again for each part of the draws, at these latents, and leaves
one number for each particle and datum. Under gradients each part is run once more in the
backward pass, so that its rows are never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from torch import Tensor

from pyro_lvm.checks import record_checked
from pyro_lvm.densities import log_prob
from pyro_lvm.layout import Layout, Scale
from pyro_lvm.mixing_rows import Rows
from pyro_lvm.particles import folded
from pyro_lvm.recomputation import recomputed
from pyro_lvm.tracing import Program, Site

__all__ = ["LaterDraws"]


@dataclass(frozen=True)
class LaterDraws:
    """Runs of a program for draws of its mixing variables beside those of its first run.

    Attributes:
        program: the program.
        args: its positional arguments.
        kwargs: its keyword arguments.
        first: its sites in the first run.
        rows: makes the recorder of so many draws, the latents given.
        sizes: numbers of draws, for one run each.
    """

    program: Program
    args: Any
    kwargs: Any
    first: Mapping[str, Site]
    rows: Callable[[int], Rows]
    sizes: Sequence[int]

    def log_sums(
        self, names: Sequence[str], layout: Layout, scales: Mapping[str, Scale]
    ) -> list[Tensor]:
        """Log of the summed density of some sites, ``(1, K, *batch)`` nats for each run."""

        def log_sum(size: int) -> Tensor:
            rows = self.rows(size)
            sites = record_checked(self.program, self.args, self.kwargs, rows).sites
            terms = {n: log_prob(replace(sites[n], mask=self.first[n].mask)) for n in names}
            total = reduce(add, folded(layout, terms, scales).values())
            return rows.filled(total).logsumexp(0, keepdim=True)

        near = self.args, self.kwargs
        return [recomputed(log_sum, size, near=near) for size in self.sizes]
