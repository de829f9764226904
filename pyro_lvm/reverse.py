r"""Mixing variables drawn by a reverse program: given the latents that they led to.

With draws of :math:`\tau(\psi \mid z, x)` in place of :math:`q(\psi \mid x)` fewer are needed:

.. math:: \log q(z \mid x) \le
    \log \tfrac1{J+1} \sum_{j=0}^J \frac{q(z, \psi_j \mid x)}{\tau(\psi_j \mid z, x)}

in the mean, where :math:`\psi_0` is the draw that made z and the others are the reverse
program's. One draw of a reverse program that is exact would do.

References:
    Sobolev, Vetrov (2019), *Importance weighted hierarchical variational inference*,
    arXiv:1905.03290, theorem 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.checks import record_checked
from pyro_lvm.densities import check_repeatable
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.mixing_rows import Rows
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = ["ReverseRows", "reversed_rows"]


class ReverseRows(Rows):
    """Runs a reverse program: each particle's ``own`` values in the first row, draws in others."""

    def __init__(self, num_fresh: int, own: Mapping[str, Tensor], guide: Recorder) -> None:
        count = guide.num_particles or 1
        super().__init__(num_fresh + 1, count, guide.max_plate_nesting, plates=guide.plates)
        self.own = own

    def _widen(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        msg["fn"] = self.in_rows(msg["fn"], self.count)
        if name in self.own:
            fresh = msg["fn"]()[1:]
            own = self.own[name].expand(fresh.shape[1:])
            msg["value"], msg["done"] = torch.cat([own.unsqueeze(0), fresh]), True


def reversed_rows(
    guide: Program,
    reverse: Program,
    args: Any,
    kwargs: Any,
    q: Recorder,
    num_fresh: int,
) -> tuple[Rows, Mapping[str, Site]]:
    """The guide run again at the values of its latents, its mixing variables in rows.

    Args:
        guide: the program of ``q``.
        reverse: called as the guide, with a keyword more for each latent.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        q: the guide's run, with one draw of everything.
        num_fresh: J, draws of the reverse program.

    Returns:
        The second run, and the reverse program's sites.

    Raises:
        ProgramError: the reverse program draws other sites than the guide's auxiliary ones.
    """
    check_repeatable(guide)
    sites = {n: s for n, s in q.sites.items() if not s.is_observed}
    latents = {n: s.value for n, s in sites.items() if not s.is_auxiliary}
    own = {n: s.value for n, s in sites.items() if s.is_auxiliary}
    rows = ReverseRows(num_fresh, own, q)
    tau = record_checked(reverse, args, {**kwargs, **latents}, rows).sites
    _check_same(set(own), set(tau))
    given = {n: s.value for n, s in tau.items()} | latents
    again = Rows(rows.num_rows, rows.count, q.max_plate_nesting, given, q.plates)
    record_checked(guide, args, kwargs, again)
    return again, tau


def _check_same(own: set[str], tau: set[str]) -> None:
    if own != tau:
        raise ProgramError(
            explain(
                "reverse program",
                f"the guide's auxiliary sites {sorted(own)}",
                f"sites {sorted(tau)}",
                "Sample every mixing variable in it, and nothing else, under the guide's names.",
            )
        )
