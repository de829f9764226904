"""Draws of the discrete sites that the bounds sum out, from their exact conditional posterior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, is_factor
from pyro_lvm.enumeration import is_summed_out
from pyro_lvm.masking import fill_masked
from pyro_lvm.particles import Particles

__all__ = ["with_discrete_draws"]


def with_discrete_draws(chunks: Chunks, particles: Particles) -> Particles:
    """``particles`` with a draw of p(c | x, z_k) for each summed-out site c, if there is one.

    Values and model sites are then those of the complete draw; log-probabilities and weights
    stay the marginal ones.
    """
    summed = [name for name, site in particles.model.items() if is_summed_out(site)]
    if not summed:
        return particles
    values = {**particles.values, **_draws(chunks, particles, summed)}
    return replace(particles, values=values, model=chunks.rerun(len(particles.log_p), values))


@torch.no_grad()
def _draws(chunks: Chunks, particles: Particles, names: list[str]) -> dict[str, Tensor]:
    model = poutine.condition(chunks.plates(chunks.model), data=dict(particles.values))
    nesting = chunks.max_plate_nesting

    def many(*args: Any, **kwargs: Any) -> None:
        with pyro.plate("particles of this draw", len(particles.log_p), dim=-1 - nesting):
            model(*args, **kwargs)

    sampler = infer_discrete(_Fill()(many), first_available_dim=-2 - nesting)
    nodes = poutine.trace(sampler).get_trace(*chunks.args, **chunks.kwargs).nodes
    return {name: nodes[name]["value"] for name in names}


class _Fill(Messenger):
    """Legal numbers for masked ones, which Pyro's own inference would score, NaN included."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] and not is_factor(msg["fn"]):
            msg["value"] = fill_masked(msg["fn"], msg["value"], msg["mask"])
