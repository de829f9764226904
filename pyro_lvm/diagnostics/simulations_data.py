"""One simulated data set: latents and data from the model, draws from the guide, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import cast

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.path import portions
from pyro_lvm.diagnostics.posterior import latent_draws
from pyro_lvm.diagnostics.simulations import DISTANCE, Simulations
from pyro_lvm.diagnostics.simulations_rows import ROUNDING, by_simulation, distances, ranks
from pyro_lvm.diagnostics.simulations_scores import Quantity, scores
from pyro_lvm.dreams import Arguments, check_generative, dreamt_arguments
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.tracing import Site

__all__ = ["Simulator"]

Sites = Mapping[str, Site]
Values = Mapping[str, Tensor]

_WITHOUT = "Look at pareto_khat and log_evidence, which need no simulations."


class Simulator:
    """Makes the simulations of one data set a call.

    Args:
        chunks: the programs on real data, and how many draws a simulation gets.
        arguments: makes the programs' arguments from dreamt data by site; without it dreams
            take the place of the argument that the site observes.
        quantities: further functions to rank.

    Attributes:
        num_simulations: of one data set.
    """

    def __init__(
        self, chunks: Chunks, arguments: Arguments | None, quantities: Mapping[str, Quantity]
    ) -> None:
        self.chunks = chunks
        self.arguments = arguments
        self.quantities = quantities
        layout = cast(Layout, chunks.probe.layout)
        self.batch, self.num_simulations = layout.names, prod(layout.shape)
        self.latents = [*latent_draws(chunks, with_discrete_draws(chunks, chunks.probe))]

    @torch.no_grad()
    def __call__(self) -> Simulations:
        """Draw a data set and rank what made it; a simulation for each datum of the batch."""
        made = self.chunks.simulate(2, {})  # the truth, and where distances are measured from
        data = _data(made)
        args, kwargs = dreamt_arguments(data, self.chunks.args, self.chunks.kwargs, self.arguments)
        programs = self.chunks.on(args, kwargs, 1)
        drawn = self._draws(programs)
        values = {name: torch.cat([made[name].value, draws]) for name, draws in drawn.items()}
        latents = self._latents(made, values)
        judged = {name: _without_reference(rows) for name, rows in latents.items()}
        reference = [rows[1:2] for rows in latents.values()]
        found = {
            **self._scores(programs, {n: _without_reference(v) for n, v in values.items()}, data),
            DISTANCE: distances(judged.values(), reference),
        }
        return Simulations(
            {name: ranks(rows).cpu() for name, rows in judged.items()},
            {name: ranks(rows, ROUNDING).cpu() for name, rows in found.items()},
            self.chunks.num_samples,
        )

    def _draws(self, programs: Chunks) -> dict[str, Tensor]:  # (L, *plates, *event)
        parts = [
            with_discrete_draws(chunk, particles).values
            for chunk in (
                programs.on(programs.args, programs.kwargs, count)
                for count in portions(self.chunks.num_samples, self.chunks.chunk_size)
            )
            for particles in chunk
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _latents(self, sites: Sites, values: Values) -> dict[str, Tensor]:
        """What is ranked by itself, ``(2 + L, simulations, *event)``."""
        plated = {
            name: self.chunks.in_own_plates(sites[name], values[name], len(values[name]))
            for name in self.latents
        }
        return by_simulation(plated, self.batch)

    def _scores(self, programs: Chunks, values: Values, data: Sites) -> dict[str, Tensor]:
        """Functions of all latents together, ``(1 + L, simulations)``."""
        rows = torch.arange(1 + self.chunks.num_samples).split(self.chunks.chunk_size)
        parts = [
            scores(programs, {n: v[some] for n, v in values.items()}, data, self.quantities)
            for some in rows
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _without_reference(rows: Tensor) -> Tensor:
    return torch.cat([rows[:1], rows[2:]])


def _data(sites: Sites) -> dict[str, Site]:
    """The first of the data sets, each site of the shape of what it observes."""
    check_generative(sites, "to simulate them", _WITHOUT)
    data = {name: site for name, site in sites.items() if "was_observed" in site.infer}
    if not data:
        hint = "Observe the data by pyro.sample(..., obs=)."
        raise ProgramError(explain("model", "at least one observed site", "none", hint))
    return {
        name: replace(site, value=site.value[0].reshape(site.infer["obs"].shape))
        for name, site in data.items()
    }
