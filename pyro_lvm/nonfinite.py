"""Which site made a loss NaN or infinite, and with what parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_lvm.densities import log_prob
from pyro_lvm.particles import Particles, draw, inspect
from pyro_lvm.tracing import Program

__all__ = ["describe_nonfinite", "first_nonfinite"]


def first_nonfinite(model: Program, guide: Program, args: Any, kwargs: Any) -> str:
    """Name the first site of one new draw whose log-probability is not finite.

    Returns:
        A phrase with the site and the range of its parameters, or that all are finite.
    """
    with torch.no_grad():
        nesting = inspect(model, guide, args, kwargs).max_plate_nesting
        particles = draw(model, guide, args, kwargs, num_particles=1, max_plate_nesting=nesting)
    return describe_nonfinite(particles)


def describe_nonfinite(particles: Particles) -> str:
    """The first site of ``particles`` with a non-finite log-probability, in a phrase."""
    for program, sites in (("guide", particles.guide), ("model", particles.model)):
        for site in sites.values():
            with torch.no_grad():
                if not bool(torch.isfinite(log_prob(site)).all()):
                    return f"site '{site.name}' of the {program}, {_ranges(site.fn)}"
    return "no single site: every log-probability of this draw is finite"


def _ranges(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    names = [name for name in fn.arg_constraints if isinstance(getattr(fn, name, None), Tensor)]
    shown = [f"{n} in [{getattr(fn, n).min():.4g}, {getattr(fn, n).max():.4g}]" for n in names]
    return f"{type(fn).__name__} with " + (", ".join(shown) or "no tensor parameters")
