"""Predictions of a Bayesian network from few data: objectives, ensembles and NUTS.

150 of the training rows of concrete, all 100 test rows; 8-20-1, weights N(0, 1), the noise
latent too. Judged by 500 draws, 300 of a chain of NUTS: mean log-likelihood of a test row, nats;
coverage of central 90 % intervals; "ranks", the mean distance of the distribution of predicted
ranks (0 to 1) from the uniform one. "acceptance" is the rate of independent Metropolis-Hastings
with the guide as its proposal, in chains of 21 moves: too high, as such chains are short.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import log
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor, nn

from benchmarks.sparse_networks import Density
from benchmarks.training import train
from pyro_lvm import sample_posterior
from pyro_lvm.data import load
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import BayesianMLP
from pyro_lvm.objectives import ELBO, IWAE, MHAcceptance

__all__ = ["RUNS", "run", "scores"]

ROWS, HIDDEN, DRAWS = 150, (20,), 500
STEPS, RATE, PARTICLES, CHAINS = 2000, 1e-2, 10, 32
WARMUP, SAMPLES, DEPTH = 150, 300, 6

Draws = dict[str, Tensor]
Pairs = tuple[Tensor, Tensor]


@cache
def table() -> tuple[Tensor, Tensor]:
    """Training and test rows, standardised, the outcome last."""
    splits = load("concrete")
    return splits.train, splits.test


def pairs(rows: Tensor) -> Pairs:
    return rows[:, :-1], rows[:, -1]


def point(model: BayesianMLP, data: Pairs, steps: int, members: int) -> Draws:
    """Weights of greatest joint density from each of several starts."""
    found = [maximum(model, data, steps) for _ in range(members)]
    return {name: torch.stack([draw[name] for draw in found]) for name in found[0]}


def maximum(model: BayesianMLP, data: Pairs, steps: int) -> Draws:
    weights = nn.ParameterDict(model.starts())
    train(Density(model, weights), weights.parameters(), lambda: data, steps, RATE)
    return {name: weight.detach() for name, weight in weights.items()}


def nuts(model: BayesianMLP, data: Pairs, steps: int) -> Draws:
    """``steps`` is not used: the chain has its own number."""
    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True, max_tree_depth=DEPTH)
    sampler = MCMC(kernel, SAMPLES, warmup_steps=WARMUP, disable_progbar=True)
    sampler.run(*data)
    draws: Draws = sampler.get_samples()
    return draws


def by_guide(
    covariance: str, objective: Callable[[], Any], model: BayesianMLP, data: Pairs, steps: int
) -> tuple[Draws, float]:
    """Draws of a guide, and the rate at which they are accepted."""
    guide = NormalWeights(model.starts(), covariance=covariance)
    fit(model, guide, objective(), data, steps)
    accepted = MHAcceptance(200).acceptance(model, guide, *data)
    return drawn(model, guide, data), float(accepted)


def accepted_after_elbo(
    lower_bound: str, model: BayesianMLP, data: Pairs, steps: int
) -> tuple[Draws, float]:
    """Half of the steps by the ELBO, the other half by the acceptance rate."""
    guide = NormalWeights(model.starts())
    fit(model, guide, ELBO(PARTICLES), data, steps // 2)
    fit(model, guide, MHAcceptance(CHAINS, lower_bound=lower_bound), data, steps // 2, RATE / 10)
    accepted = MHAcceptance(200).acceptance(model, guide, *data)
    return drawn(model, guide, data), float(accepted)


def fit(
    model: nn.Module, guide: nn.Module, objective: Any, data: Pairs, steps: int, rate: float = RATE
) -> None:
    train(objective(model, guide), guide.parameters(), lambda: data, steps, rate)


def drawn(model: nn.Module, guide: nn.Module, data: Pairs) -> Draws:
    return sample_posterior(model, guide, *data, num_samples=DRAWS)


RUNS: dict[str, Any] = {
    "point estimate": partial(point, members=1),
    "ensemble of 5": partial(point, members=5),
    "ELBO": partial(by_guide, "diagonal", partial(ELBO, PARTICLES)),
    "ELBO, low rank": partial(by_guide, "low_rank", partial(ELBO, PARTICLES)),
    "IWAE dreg, K=10": partial(by_guide, "diagonal", partial(IWAE, PARTICLES, gradient="dreg")),
    "MHAcceptance": partial(by_guide, "diagonal", partial(MHAcceptance, CHAINS)),
    "ELBO, then MHAcceptance": partial(accepted_after_elbo, "jensen"),
    "ELBO, then MHAcceptance, symmetric": partial(accepted_after_elbo, "symmetric"),
    "NUTS": nuts,
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """What one contender predicts."""
    pyro.set_rng_seed(seed)
    train_rows, test_rows = table()
    data = pairs(train_rows[torch.randperm(len(train_rows))[:ROWS]])
    model = BayesianMLP(train_rows.shape[1] - 1, HIDDEN)
    found = RUNS[name](model, data, steps=steps or STEPS)
    draws, accepted = found if isinstance(found, tuple) else (found, None)
    outcome = scores(model, draws, *pairs(test_rows))
    return outcome if accepted is None else outcome | {"acceptance": accepted}


@torch.no_grad()
def scores(model: BayesianMLP, draws: Draws, x: Tensor, y: Tensor) -> dict[str, float]:
    """Of the mixture over draws, at test rows."""
    law = model.outcome(x, draws)  # (S, n)
    log_p = law.log_prob(y).logsumexp(0) - log(len(law.mean))
    ranks = law.cdf(y).mean(0).sort().values
    even = (torch.arange(len(y)) + 0.5) / len(y)
    return {
        "log p": log_p.mean().item(),
        "RMSE": (law.mean.mean(0) - y).square().mean().sqrt().item(),
        "coverage of 90 %": ((ranks > 0.05) & (ranks < 0.95)).double().mean().item(),
        "ranks": (ranks - even).abs().mean().item(),
    }
