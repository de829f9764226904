"""A known causal graph, seen through a network: DEAR beside supervised VAEs.

Three causes and effects and one latent of its own, x = a fixed random network of them plus
noise, 2000 data of 12 numbers, 200 of them with labels: the true values of the three. The graph
that the prior is given has an edge too many, from the first to the last. Of 1000 test data:

- "correlation": of the guide's means with the true values, a mean over the three.
- "0 to 1" and so on: how much the effect moves per unit of its cause, by the prior's equations;
  the truth is in the name of the column.
- "copy", "counterfactual": root mean squared error of x, without noise, decoded from the guide's
  means; as they are, and had the first latent been 1 with all noise as it was. The standard
  deviation of x is about 1. Latents that are independent in the prior stay as they are.

References:
    Shen, Liu, Dong, Lian, Chen, Zhang (2022), *Weakly supervised disentangled generative causal
    representation learning*, arXiv:2010.02637.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.distributions import GaussianLikelihood, StructuralCausalPrior
from pyro_lvm.guides import AmortizedNormal, WithoutLabels
from pyro_lvm.models import VAE, SupervisedVAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ALI, ELBO

__all__ = ["RUNS", "World", "run"]

PIXELS, LATENTS, CAUSAL, HIDDEN = 12, 4, 3, (64, 64)
EDGES = {(0, 1): 0.8, (1, 2): -0.7, (0, 2): 0.0}
NUM_DATA, NUM_LABELS, NUM_TEST = 2000, 400, 1000
STEPS, BATCH = 2500, 100
RATE, SLOW = 2e-3, 1e-3  # of programs under the ELBO, and beside a critic
FASTER = 10.0  # the rate of the prior's few parameters, times that of the networks
LABEL_WEIGHT = 20.0
DO = {0: 1.0}


class World:
    """The true model: its structural equations, and the network that shows them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(LATENTS, 24, generator=generator) / LATENTS**0.5
        self.second = torch.randn(24, PIXELS, generator=generator) / 24**0.5 * 2.0
        self.prior = StructuralCausalPrior(LATENTS, [*EDGES], num_causal=CAUSAL)
        self.prior.strength.data.copy_(torch.tensor([*EDGES.values()]))

    @torch.no_grad()
    def latents(self, count: int) -> Tensor:
        drawn: Tensor = self.prior().sample((count,))
        return drawn

    def shown(self, z: Tensor) -> Tensor:
        return (z @ self.first).tanh() @ self.second


class Causes(nn.Module):
    """A label is the latent of the same number."""

    def forward(self, z: Tensor) -> Tensor:
        return z[..., :CAUSAL]


def _dear() -> Objective:
    critic = Discriminator(LATENTS, PIXELS, hidden=(64, 64))
    return ALI(critic, divergence="kl", max_weight=2.0, data="x", discriminator_lr=2e-3)


@dataclass(frozen=True)
class Run:
    """An objective, the rate of its programs, and whether latents have causes."""

    objective: Callable[[], Objective]
    rate: float
    is_causal: bool


RUNS = {
    "VAE with labels": Run(ELBO, RATE, is_causal=False),
    "VAE with labels, causal prior": Run(ELBO, RATE, is_causal=True),
    "DEAR": Run(_dear, SLOW, is_causal=True),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one and judge it by the truth."""
    pyro.set_rng_seed(seed)
    chosen, world = RUNS[name], World()
    z = world.latents(NUM_DATA)
    x = world.shown(z) + 0.1 * torch.randn(NUM_DATA, PIXELS)
    y = torch.full((NUM_DATA, CAUSAL), torch.nan)
    y[:NUM_LABELS] = z[:NUM_LABELS, :CAUSAL]
    prior = StructuralCausalPrior(LATENTS, [*EDGES], num_causal=CAUSAL)
    vae = VAE(PIXELS, LATENTS, HIDDEN, "gaussian", prior=prior if chosen.is_causal else None)
    vae.likelihood.noise_scale = torch.full((PIXELS,), 0.3)
    guide = AmortizedNormal(in_features=PIXELS, latent_features=LATENTS, hidden=HIDDEN)
    model = supervised(vae)

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.randint(NUM_DATA, (BATCH,))
        return x[rows], y[rows]

    module = chosen.objective()(model, WithoutLabels(guide))
    groups = _groups(module, prior, chosen.rate)
    train(module, groups, batch, steps or STEPS, chosen.rate, per=BATCH)
    return judged(world, vae, guide, prior if chosen.is_causal else None)


def supervised(vae: VAE) -> SupervisedVAE:
    """The first latents are the labels, up to noise that is learned."""
    model = SupervisedVAE(
        vae, GaussianLikelihood(CAUSAL), latent_features=LATENTS, label_weight=LABEL_WEIGHT
    )
    model.predictor = Causes()
    return model


def _groups(module: nn.Module, prior: nn.Module, rate: float) -> list[Any]:
    of_prior = {id(p) for p in prior.parameters()}
    networks = [p for p in module.parameters() if id(p) not in of_prior]
    return [{"params": networks}, {"params": [*prior.parameters()], "lr": FASTER * rate}]


@torch.no_grad()
def judged(
    world: World, vae: VAE, guide: AmortizedNormal, prior: StructuralCausalPrior | None
) -> dict[str, float]:
    """Against the truth, on fresh data."""
    z = world.latents(NUM_TEST)
    x = world.shown(z)
    codes = guide.posterior(x + 0.1 * torch.randn_like(x))["z"].mean
    moved = codes.clone() if prior is None else prior.do(codes, DO)
    moved[:, [*DO]] = torch.tensor([*DO.values()])
    found = {"correlation": correlation(codes[:, :CAUSAL], z[:, :CAUSAL])}
    if prior is not None:
        found |= effects(prior)
    return found | {
        "copy": _error(vae.decode(codes).mean, x),
        "counterfactual": _error(vae.decode(moved).mean, world.shown(world.prior.do(z, DO))),
    }


def effects(prior: StructuralCausalPrior) -> dict[str, float]:
    """How much z moves per unit of each direct cause."""
    scale = prior.log_scale.exp()
    by_unit = {
        (cause, effect): (prior.adjacency[cause, effect] * scale[effect] / scale[cause]).item()
        for cause, effect in EDGES
    }
    return {f"{c} to {e} ({EDGES[c, e]})": found for (c, e), found in by_unit.items()}


def correlation(first: Tensor, second: Tensor) -> float:
    """Of columns with columns, a mean."""
    pairs = zip(first.T, second.T, strict=True)
    every = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    return torch.stack(every).mean().item()


def _error(made: Tensor, x: Tensor) -> float:
    return (made - x).square().mean().sqrt().item()
