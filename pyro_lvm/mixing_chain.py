r"""Mixing variables from their posterior given the latents, by Hamiltonian chains.

A chain of each particle and datum starts at the draw that made its latents, which is already
one of :math:`q(\psi \mid z, x)`: it needs no time to arrive, only to move on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import prod
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_lvm.checks import record_checked
from pyro_lvm.densities import check_repeatable, log_prob
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.hmc import Point
from pyro_lvm.layout import Layout
from pyro_lvm.mixing_rows import Rows
from pyro_lvm.particles import folded
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = ["MixingDensity"]


class MixingDensity:
    """The density of a guide's mixing variables and latents, as a function of the first.

    Args:
        guide: the program.
        args: its positional arguments.
        kwargs: its keyword arguments.
        q: a run of it.
        latents: values ``(K, *plates, *event)``, held fixed.
        mixing: values of the mixing variables that made them, of such shapes too.
        layout: of the two programs.

    Raises:
        ProgramError: a mixing variable that is outside the data's plates, or not real.
    """

    def __init__(
        self,
        guide: Program,
        args: Any,
        kwargs: Any,
        q: Recorder,
        latents: Mapping[str, Tensor],
        mixing: Mapping[str, Tensor],
        layout: Layout,
    ) -> None:
        check_repeatable(guide)
        for name, value in mixing.items():
            _check_site(q.sites[name], value, layout)
        self.guide, self.args, self.kwargs = guide, args, kwargs
        self.q, self.layout = q, layout
        self.latents = {n: z.detach() for n, z in latents.items()}
        self.shapes = {n: value.shape for n, value in mixing.items()}
        self.lead = 1 + q.max_plate_nesting
        self.start = self.joined(mixing)

    def joined(self, mixing: Mapping[str, Tensor]) -> Tensor:  # (K, *batch, D)
        """Values side by side."""
        values = [v.detach().reshape(*v.shape[: self.lead], -1) for v in mixing.values()]
        return torch.cat(values, -1)

    def parted(self, position: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`joined`, rows in front kept."""
        sizes = [prod(shape[self.lead :]) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), position.split(sizes, -1), strict=True)
        return {
            n: part.reshape(*part.shape[:-1], *shape[self.lead :]) for (n, shape), part in parts
        }

    @torch.enable_grad()
    def __call__(self, position: Tensor) -> Point:
        """The joint log-density ``(K, *batch)`` nats at ``(K, *batch, D)``, and its slope."""
        position = position.detach().requires_grad_()
        recorder = Recorder(
            self.q.num_particles,
            self.q.max_plate_nesting,
            {**self.latents, **self.parted(position)},
            self.q.plates,
        )
        log_joint = self._total(recorder)
        (slope,) = torch.autograd.grad(log_joint.sum(), position)
        zero = torch.zeros_like
        return Point(position.detach(), zero(log_joint), log_joint.detach(), zero(slope), slope)

    @torch.enable_grad()
    def score(self, positions: Tensor) -> dict[str, Tensor]:
        """Mean over rows of the gradient of log q(z | psi) in each latent, of its shape.

        Args:
            positions: ``(S, K, *batch, D)``.
        """
        latents = {n: z.detach().requires_grad_() for n, z in self.latents.items()}
        rows = Rows(
            len(positions),
            self.q.num_particles or 1,
            self.q.max_plate_nesting,
            {**latents, **self.parted(positions)},
            self.q.plates,
        )
        total = self._total(rows).sum() / len(positions)
        slopes = torch.autograd.grad(total, [*latents.values()])
        return dict(zip(latents, slopes, strict=True))

    def _total(self, recorder: Recorder) -> Tensor:
        record_checked(self.guide, self.args, self.kwargs, recorder)
        terms = {n: log_prob(s) for n, s in recorder.sites.items() if not s.is_observed}
        return reduce(add, folded(self.layout, terms, self.layout.guide_scales).values())


def _check_site(site: Site, value: Tensor, layout: Layout) -> None:
    inside = tuple(value.shape[1 : 1 + layout.max_plate_nesting]) == layout.shape
    support = getattr(site.fn.support, "base_constraint", site.fn.support)
    if not inside or support not in (constraints.real, constraints.real_vector):
        raise ProgramError(
            explain(
                f"auxiliary site '{site.name}'",
                f"real mixing variables in the plates of the data, {list(layout.names)}",
                f"{site.fn} with a value of shape {tuple(value.shape)}",
                "Draw standard Normal noise there and transform it, or use SIVI.",
            )
        )
