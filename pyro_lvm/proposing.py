"""Metropolis-Hastings proposals from where the chains are, and the choice between the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_lvm.latent_chains import StartingAt
from pyro_lvm.layout import Layout, chosen_rows
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program, Site

__all__ = ["Drawn", "chosen", "latents", "moved", "numbers", "proposals_from"]

Drawn = Callable[..., Particles]
"""Runs two programs: ``drawn(guide, num_particles=K)``."""

Values = Mapping[str, Tensor]


def proposals_from(
    drawn: Drawn, guide: Program, states: Values, max_plate_nesting: int
) -> Particles:
    r"""Particles ``(2 K, *batch)``: where K chains are, then where a Markov guide would go.

    .. math:: w(z') = \frac{p(x, z')}{q(z' \mid z, x)}, \quad w(z) = \frac{p(x, z)}{q(z \mid z', x)}

    are their weights: their ratio is what Metropolis-Hastings accepts by. The guide is called
    with ``current=``, the states ``(K, *plates, *event)`` by site.
    """

    def given(current: Values) -> Program:
        def program(*args: Any, **kwargs: Any) -> Any:
            with _Varying(max_plate_nesting):
                return guide(*args, current=current, **kwargs)

        return program

    count = len(next(iter(states.values())))
    forward = drawn(given(states), num_particles=count)
    with StartingAt(states):
        back = drawn(given(latents(forward)), num_particles=count)
    return _joined(back, forward)


def moved(particles: Particles, layout: Layout) -> Tensor:
    """Rows ``(K, *batch)`` of K states and K proposals that the chains are at next."""
    states, proposals = particles.log_weights.chunk(2)
    accepted = independence_chain(torch.stack([states, proposals])).rows[-1]
    return layout.unfold(accepted * len(states) + numbers(accepted))


def latents(particles: Particles) -> dict[str, Tensor]:
    """What the guide drew, ``(K, *plates, *event)`` by site."""
    return {n: site.value for n, site in particles.guide.items() if _is_drawn(site)}


def chosen(values: Values, rows: Tensor) -> dict[str, Tensor]:
    """Of each the particles ``(S, *plates)``."""
    return {name: chosen_rows(value, rows) for name, value in values.items()}


def numbers(rows: Tensor) -> Tensor:
    """0 to K - 1 along the first dim of ``(K, *batch)``."""
    return torch.arange(len(rows), device=rows.device).reshape(-1, *[1] * (rows.dim() - 1))


def _is_drawn(site: Site) -> bool:
    return not (site.is_observed or site.is_delta)


def _joined(first: Particles, second: Particles) -> Particles:
    guide = {
        name: replace(site, value=torch.cat([first.guide[name].value, site.value]))
        for name, site in second.guide.items()
        if _is_drawn(site)
    }
    return replace(
        second,
        log_p=torch.cat([first.log_p, second.log_p]),
        log_q=torch.cat([first.log_q, second.log_q]),
        values={n: torch.cat([first.values[n], v]) for n, v in second.values.items()},
        guide={**second.guide, **guide},
    )


class _Varying(Messenger):
    """Draws the sites that vary over particles before anything is drawn, as the states do."""

    def __init__(self, max_plate_nesting: int) -> None:
        super().__init__()
        self.max_plate_nesting = max_plate_nesting

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if type(msg["fn"]).__name__ == "_Subsample" or msg["value"] is not None:
            return
        left = msg["fn"].batch_shape[: -self.max_plate_nesting or None]
        if left.numel() > 1:
            msg["value"] = msg["fn"]()
