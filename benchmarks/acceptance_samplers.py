"""NUTS, HMC and random walks on the targets that proposals are trained for.

NUTS and HMC are Pyro's, four chains one after the other; random walks are 64 chains side by side,
with steps whose length is learned. All start at draws of a Normal of standard deviation 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from time import process_time

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import HMC, MCMC, NUTS
from torch import Tensor

from benchmarks.acceptance_families import START
from benchmarks.acceptance_targets import TARGETS, model, scores
from benchmarks.training import train
from pyro_lvm.mcmc import MarkovMetropolisHastings, RandomWalk
from pyro_lvm.objectives import MarkovAcceptance

__all__ = ["RUNS", "run"]

CHAINS, LENGTH, WARMUP = 4, 500, 200
TRAJECTORY = pi / 2  # to the middle of a Normal from its edge; step and masses adapt
WALKS, WALK_LENGTH, WALK_WARMUP, WALK_STEPS = 64, 1000, 300, 200

RUNS = [f"{target}, {sampler}" for target in TARGETS for sampler in ("NUTS", "HMC", "random walk")]

Chains = tuple[Tensor, float, float]
"""States ``(chains, draws, 2)``, acceptance, gradients of the target for each."""


class Counted:
    """A density, and how often it was asked for with a gradient."""

    def __init__(self, target: str) -> None:
        self.target, self.count = target, 0

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        self.count += 1
        value: Tensor = -TARGETS[self.target].log_prob(parameters["z"])
        return value


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Acceptance, ESS and their cost for one target and sampler; ``steps`` are draws a chain."""
    pyro.set_rng_seed(seed)
    target, sampler = name.split(", ")
    began = process_time()
    draws, acceptance, gradients = SAMPLERS[sampler](target, steps)
    seconds = process_time() - began
    found = scores(target, draws)
    effective = found["ESS per 1000"] * draws.shape[:2].numel() / 1000
    return {
        "acceptance": acceptance,
        **found,
        "ESS per second": effective / seconds,
        "gradients a draw": gradients / draws.shape[:2].numel(),
    }


def hamiltonian(kernel: Callable[..., HMC], target: str, steps: int | None) -> Chains:
    """Chains of Pyro's, each with its own warm-up, which is counted."""
    density, draws, rates = Counted(target), [], []
    for _ in range(CHAINS):
        mcmc = MCMC(
            kernel(potential_fn=density),
            num_samples=steps or LENGTH,
            warmup_steps=min(WARMUP, steps or WARMUP),
            initial_params={"z": START * torch.randn(2)},
            disable_progbar=True,
        )
        mcmc.run()
        draws.append(mcmc.get_samples()["z"])
        rates.append(mcmc.diagnostics()["acceptance rate"]["chain 0"])
    return torch.stack(draws), sum(rates) / len(rates), density.count


def walks(target: str, steps: int | None) -> Chains:
    """Chains with a step length learned in ``WALK_STEPS`` steps, which are counted."""
    guide, objective = RandomWalk(_start, scale=1.0), MarkovAcceptance(WALKS)
    program = partial(model, target)
    train(objective(program, guide), [guide.log_scale], tuple, min(WALK_STEPS, steps or 200), 0.05)
    kernel = MarkovMetropolisHastings(program, guide, num_chains=WALKS)
    kernel.initial_params = objective.chains.values
    mcmc = MCMC(
        kernel,
        num_samples=steps or WALK_LENGTH,
        warmup_steps=min(WALK_WARMUP, steps or WALK_WARMUP),
        disable_progbar=True,
    )
    mcmc.run()
    rate = mcmc.diagnostics()["acceptance rate"]["chain 0"].mean().item()
    return mcmc.get_samples()["z"].transpose(0, 1), rate, 2.0 * WALKS * WALK_STEPS


def _start() -> None:
    pyro.sample("z", dist.Normal(torch.zeros(2), START).to_event(1))


SAMPLERS: dict[str, Callable[[str, int | None], Chains]] = {
    "NUTS": partial(hamiltonian, NUTS),
    "HMC": partial(hamiltonian, partial(HMC, trajectory_length=TRAJECTORY)),
    "random walk": walks,
}
