"""Flows, and a mixture, trained as independent proposals by objectives of their own.

Each is judged by chains that its draws feed: acceptance, effective sample size and distance to
the target, and what they cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import process_time
from typing import NamedTuple

import pyro
import torch
from matplotlib.figure import Figure
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.acceptance_families import Flow, Mixture
from benchmarks.acceptance_targets import TARGETS, model, scores
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, MHAcceptance

__all__ = ["OBJECTIVES", "RUNS", "fitted", "picture", "run"]

STEPS, RATE, MAX_NORM, DRAWS = 2500, 5e-3, 5.0, 256
CHAINS, LENGTH, WARMUP = 64, 1000, 100


class Setting(NamedTuple):
    """An objective, its guide, and a rate, level for a share of the steps, then falling to 0."""

    objective: Callable[[], Objective]
    guide: Callable[[], PyroModule] = Flow
    rate: float = RATE
    level: float = 0.5


FAST = "acceptance at twice the rate"
OBJECTIVES = {
    "reverse KL": Setting(partial(ELBO, 2 * DRAWS)),
    "symmetric KL": Setting(partial(MHAcceptance, DRAWS, lower_bound="symmetric")),
    "acceptance": Setting(partial(MHAcceptance, DRAWS)),
    FAST: Setting(partial(MHAcceptance, DRAWS), rate=2 * RATE, level=0.0),
    "reverse KL of a mixture": Setting(partial(ELBO, 2 * DRAWS), Mixture, 6 * RATE),
    "acceptance of a mixture": Setting(partial(MHAcceptance, DRAWS), Mixture, 6 * RATE),
}
RUNS = [f"{t}, {o}" for t in TARGETS for o in OBJECTIVES if o != FAST or t == "mog2"]


def fitted(name: str, objective: str, steps: int) -> PyroModule:
    """By Adam on clipped gradients."""
    setting = OBJECTIVES[objective]
    guide = setting.guide()
    module = setting.objective()(partial(model, name), guide)
    parameters = [*guide.parameters()]
    optimiser = torch.optim.Adam(parameters, setting.rate)
    for step in range(steps):
        left = min(1.0, (1.0 - step / steps) / (1.0 - setting.level))
        optimiser.param_groups[0]["lr"] = setting.rate * left
        optimiser.zero_grad()
        module().backward()
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimiser.step()
    return guide


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Acceptance, ESS and their cost for one target and objective."""
    pyro.set_rng_seed(seed)
    target, objective = name.split(", ")
    began = process_time()
    guide = fitted(target, objective, steps or STEPS)
    trained = process_time()
    draws, acceptance = chains(target, guide)
    found = scores(target, draws)
    seconds = process_time() - trained
    effective = found["ESS per 1000"] * draws.shape[:2].numel() / 1000
    return {
        "acceptance": acceptance,
        **found,
        "ESS per second": effective / seconds,
        "training, seconds": trained - began,
        "training, gradients of the target": 2.0 * DRAWS * (steps or STEPS),
    }


@torch.no_grad()
def chains(target: str, guide: PyroModule) -> tuple[Tensor, float]:
    """States ``(chains, draws, 2)`` after the warm-up, and the acceptance rate."""
    shape = (LENGTH + WARMUP) * CHAINS
    particles = ELBO(shape).particles(partial(model, target), guide)
    z = particles.values["z"].unflatten(0, (-1, CHAINS))
    chain = independence_chain(particles.log_weights.unflatten(0, (-1, CHAINS)))
    states = z.gather(0, chain.rows[..., None].expand_as(z))[WARMUP:]
    return states.transpose(0, 1), chain.acceptance[WARMUP:].mean().item()


def picture(steps: int | None = None) -> Figure:
    """Draws of the proposals of seed 0 and of their chains, beside exact ones."""
    pyro.set_rng_seed(0)
    figure = Figure(figsize=(9.0, 9.5), layout="constrained")
    axes = figure.subplots(len(TARGETS), 4, sharex=True, sharey=True)
    for row, target in zip(axes, TARGETS, strict=True):
        kinds = {f"{target}: exact": TARGETS[target].sample((2000,))}
        for objective in ("reverse KL", "acceptance"):
            pyro.set_rng_seed(0)
            guide = fitted(target, objective, steps or STEPS)
            draws = ELBO(2000).particles(partial(model, target), guide).values["z"]
            kinds[f"proposal, {objective}"] = draws
        kinds["its chains"] = chains(target, guide)[0][:, :: LENGTH // 30].flatten(0, -2)
        for axis, (title, z) in zip(row, kinds.items(), strict=True):
            axis.plot(*z.T, ".", markersize=1.5, alpha=0.5)
            axis.set(xlim=(-8, 8), ylim=(-8, 8), aspect="equal")
            axis.set_title(title, fontsize=9)
    return figure
