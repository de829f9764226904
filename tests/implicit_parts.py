"""An implicit guide, and the sites that a program draws."""

from collections.abc import Callable
from typing import Any

from pyro_lvm.guides import ImplicitGuide
from pyro_lvm.tracing import Recorder, Site, record


def small(noise: str = "concat", **options: Any) -> ImplicitGuide:
    """Of six columns."""
    given = {"in_features": 6, "latent_features": 2, "hidden": (8,), "noise_hidden": (8, 8)}
    return ImplicitGuide(noise=noise, **{**given, **options})


def sites_of(program: Callable[..., Any], *args: Any, particles: int = 3) -> dict[str, Site]:
    """With particles left of two dims of plates."""
    return record(program, args, {}, Recorder(particles, 2)).sites
