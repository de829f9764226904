"""Values of ``pyro.deterministic``, as further variables of the posterior and of the prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from warnings import warn

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.drawn_entries import entries_name
from pyro_lvm.errors import explain
from pyro_lvm.tracing import Site

__all__ = ["Deterministics", "is_deterministic", "of_each_datum"]

Draws = dict[str, Plated]


def is_deterministic(fn: Any, infer: Mapping[str, Any]) -> bool:
    """Whether a site is a value of others: marked so, or left behind by ``poutine.reparam``."""
    is_left = isinstance(fn, MaskedDistribution) and isinstance(fn.base_dist, Delta)
    return bool(infer.get("_deterministic")) or (is_left and fn._mask is False)


class _Catcher(Messenger):
    """Keeps what passes by, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, Site] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if is_deterministic(msg["fn"], msg["infer"]):
            shared = ("name", "fn", "value", "is_observed", "infer", "scale", "mask")
            known = {name: msg[name] for name in shared}
            self.sites[msg["name"]] = Site(
                **known, frames=msg["cond_indep_stack"], is_downstream=False
            )


class Deterministics:
    """Those of a model that follow from its latents; others are data, the same in each draw.

    Data that ``obs_mask`` has completed are left out: what is drawn of them is a latent.

    Pyro takes all dims of such a value for event dims unless told otherwise. Here a dim is a
    plate's if the site is in the plate, or if it stands in the plate's place and has its size.

    Args:
        chunks: of the model.
    """

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        two = with_discrete_draws(chunks, chunks.probe).values
        self.names: list[str] = []
        if sites := self._sites(2, two):
            three = self._sites(3, {name: torch.cat([z, z[:1]]) for name, z in two.items()})
            vary = [n for n in sites if (_lead(sites[n]), _lead(three[n])) == (2, 3)]
            self.names = [n for n in vary if entries_name(n) not in chunks.probe.model]

    def given(self, latents: Mapping[str, Tensor], num_draws: int) -> Draws:
        """``(num_draws, *plates, *event)`` of each, from so many values of the latents."""
        return self._draws(self._sites(num_draws, latents), num_draws) if self.names else {}

    @contextmanager
    def caught(self, num_draws: int) -> Iterator[Draws]:
        """Filled after the block, in which the model runs once."""
        draws: Draws = {}
        with _Catcher() as catcher:
            yield draws
        draws |= self._draws(catcher.sites, num_draws)

    def _sites(self, num_draws: int, latents: Mapping[str, Tensor]) -> dict[str, Site]:
        with _Catcher() as catcher:
            self.chunks.rerun(num_draws, latents)
        return catcher.sites

    def _draws(self, sites: Mapping[str, Site], num_draws: int) -> Draws:
        return {name: self._plated(sites[name], num_draws) for name in self.names}

    def _plated(self, site: Site, num_draws: int) -> Plated:
        nesting = self.chunks.max_plate_nesting
        sizes = site.value.shape[1:]
        frames = self._frames(site, sizes[:nesting]) if len(sizes) >= nesting else None
        if frames is None:
            return Plated((), site.value)
        placed = replace(site, frames=tuple(frames))
        return self.chunks.in_own_plates(placed, site.value, num_draws, len(sizes) - nesting)

    def _frames(self, site: Site, sizes: Sequence[int]) -> list[Any] | None:
        """The plates of dims of ``sizes``; None where one is no plate's."""
        others = [frame for each in self.chunks.probe.model.values() for frame in each.frames]
        found = []
        for dim, size in enumerate(sizes, start=-len(sizes)):
            own = [frame for frame in site.frames if frame.dim == dim]
            like = [frame for frame in others if frame.dim == dim and frame.size == size]
            if own or size > 1:
                if not (own or like):
                    return None
                found.append((own or like)[0])
        return found


def _lead(site: Site) -> int:
    """Size of the first dim, that of the draws; 0 of a number."""
    return site.value.shape[0] if site.value.dim() else 0


def of_each_datum(posterior: Draws, batch: Sequence[str]) -> Draws:
    """Without variables of all data, where a correction chooses draws for each datum apart."""
    others = [name for name, draws in posterior.items() if not set(batch) <= set(draws.plates)]
    if others:
        hint = "Compute it from the corrected draws, or open the plate around it."
        expected, found = f"in the plates {list(batch)}, whose data have draws of their own", "not"
        where = f"deterministic '{others[0]}' under correct="
        warn(f"{explain(where, expected, found, hint)} Left out: {others}.", stacklevel=2)
    return {name: draws for name, draws in posterior.items() if name not in others}
