"""The steps that are compared: ours, by hand, and Pyro's, on one model and guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from benchmarks.programs import BY_HAND, Guide, Model
from pyro_lvm import objectives

__all__ = ["Step", "contenders"]

Step = Callable[[], object]
"""Computes a loss and adds its gradient to the parameters."""


def pyro_objective(name: str, num_particles: int, vectorised: bool) -> Any:
    """Pyro's class of the same bound; it has the plain gradient only."""
    options = {
        "num_particles": num_particles,
        "vectorize_particles": vectorised,
        "max_plate_nesting": 1,
    }
    return Trace_ELBO(**options) if name == "ELBO" else RenyiELBO(alpha=0, **options)


def contenders(
    model: Model, guide: Guide, x: Tensor, num_particles: int
) -> dict[tuple[str, str, str], Step]:
    """Each step by (objective, gradient, side); Pyro has the plain gradient only."""
    steps: dict[tuple[str, str, str], Step] = {}
    for (name, gradient), by_hand in BY_HAND.items():
        ours = getattr(objectives, name)(num_particles, gradient)
        steps[name, gradient, "ours"] = _bound(ours.loss_and_grads, model, guide, x)
        steps[name, gradient, "by hand"] = _backward(
            by_hand, model.decoder, guide.encoder, x, num_particles
        )
    for name in ("ELBO", "IWAE"):
        for side, vectorised in (("Pyro vectorised", True), ("Pyro looped", False)):
            theirs = pyro_objective(name, num_particles, vectorised)
            steps[name, "reparam", side] = _bound(theirs.loss_and_grads, model, guide, x)
    return steps


def _bound(step: Callable[..., float], *args: object) -> Step:
    return lambda: step(*args)


def _backward(loss: Callable[..., Tensor], *args: object) -> Step:
    def step() -> float:
        value = loss(*args)
        value.backward()
        return value.item()

    return step
