"""Missing entries that the model draws beside its latents, as :class:`NotAtRandom` does."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pyro_lvm.distributions import PartlyKnown
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site

__all__ = ["drawn_entries", "entries_name", "reads_the_mask", "with_entries"]


def entries_name(site: str) -> str:
    """Of the site whose values they are."""
    return f"{site}_unobserved"


def drawn_entries(particles: Particles, site: str) -> Tensor | None:
    """Those of ``site`` in each particle, ``(K, *plates, *event)``, if the model draws them."""
    drawn = particles.model.get(entries_name(site))
    return None if drawn is None else drawn.value


def with_entries(particles: Particles, site: str) -> Particles:
    """The same particles, with these entries among their latent values."""
    entries = drawn_entries(particles, site)
    if entries is None:
        return particles
    return replace(particles, values={**particles.values, entries_name(site): entries})


def reads_the_mask(particles: Particles, site: Site) -> bool:
    """Whether the model of the site is another one where other entries are missing."""
    fn = site.fn
    while not isinstance(fn, PartlyKnown) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, PartlyKnown) or entries_name(site.name) in particles.model
