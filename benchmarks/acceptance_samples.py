"""Four modes given by samples, and a wide Normal as their generator: what a discriminator keeps.

The modes have the weights .4, .3, .2 and .1. Chains over the Normal's draws are fed the exact
ratio, or that of a discriminator of many or of few samples, which stops by the loss on held-out
ones or goes on.
"""

from __future__ import annotations

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.critic import Side
from pyro_lvm.mcmc import ImplicitMetropolisHastings
from pyro_lvm.nn import Discriminator

__all__ = ["RUNS", "run"]

WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])
CENTRES = 2.0 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
TARGET = dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Normal(CENTRES, 0.4).to_event(1))
GENERATOR = dist.Normal(torch.zeros(2), 2.5).to_event(1)
NEAR = 1.2  # of a mode: 99 % of the target
CHAINS, LENGTH, STEPS = 64, 640, 2000

RUNS = ("exact ratio", "20000 samples", "300 samples", "300 samples, to the end")


class Exact(nn.Module):
    """The log-ratio itself."""

    def forward(self, x: Tensor, context: Any) -> Tensor:
        return TARGET.log_prob(x) - GENERATOR.log_prob(x)


def generator(count: int) -> Tensor:
    return GENERATOR.sample((count,))


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """How far the weights of the modes are off, beside what makes draws look right."""
    pyro.set_rng_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of saturation, which is what is looked for
        sampler = fitted(name, steps or STEPS)
        draws = sampler.sample(LENGTH, num_chains=CHAINS)
    distance = (draws.values[..., None, :] - CENTRES).norm(dim=-1)
    shares = torch.bincount(distance.argmin(-1).flatten(), minlength=4) / (CHAINS * LENGTH)
    found = {
        "acceptance": draws.acceptance.mean().item(),
        "ESS per 1000": 1000 * draws.ess / (CHAINS * LENGTH),
        "near a mode": (distance.amin(-1) < NEAR).float().mean().item(),
        "weights, total variation": 0.5 * (shares - WEIGHTS).abs().sum().item(),
        "held-out log-loss": held_out_loss(sampler),
    }
    if draws.quality and "to the end" not in name:
        found["calibration error"] = draws.quality.calibration_error.item()
    return found


def fitted(name: str, steps: int) -> ImplicitMetropolisHastings:
    if name == "exact ratio":
        return ImplicitMetropolisHastings(generator, Exact())
    sampler = ImplicitMetropolisHastings(generator, Discriminator(2, hidden=(128, 128)))
    samples = TARGET.sample((int(name.split()[0]),))
    if "to the end" not in name:
        sampler.fit(samples, max_steps=steps)
        return sampler
    sampler.critic.set_rate(1e-3)
    for _ in range(steps):
        rows = torch.randint(len(samples), (256,))
        sampler.critic.learn(Side(samples[rows]), Side(generator(256)))
    return sampler


@torch.no_grad()
def held_out_loss(sampler: ImplicitMetropolisHastings) -> float:
    """Of fresh draws of both, nats a draw."""
    real = sampler.critic(Side(TARGET.sample((10_000,))))
    fake = sampler.critic(Side(generator(10_000)))
    softplus = nn.functional.softplus
    return 0.5 * (softplus(-real).mean() + softplus(fake).mean()).item()
