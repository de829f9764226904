"""Autoregressive guides of bits that explain each other away, against enumeration."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from autoregressive_parts import (
    BITS,
    MAX_Z,
    SUMS,
    VALUES,
    bits_guide,
    gradients,
    sum_of_bits,
    train,
)
from standard_errors import assert_mean
from torch import Tensor

from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import expected_bound


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


def log_joint(x: Tensor, noise: float = 0.3) -> Tensor:  # (values, B)
    prior = dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1).log_prob(VALUES)
    return prior[:, None] + dist.Normal(VALUES.sum(-1)[:, None], noise).log_prob(x[:, 0])


def kl_to_posterior(log_q: Tensor, x: Tensor) -> Tensor:  # (B,)
    joint = log_joint(x)
    return (log_q.exp() * (log_q - joint + joint.logsumexp(0))).sum(0)


def best_factorised_kl(x: Tensor, starts: int = 50) -> Tensor:  # (B,)
    logits = torch.randn(starts * len(x), BITS, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(200):
        log_q = dist.Bernoulli(logits=logits).to_event(1).log_prob(VALUES[:, None])
        kl = kl_to_posterior(log_q, x.repeat(starts, 1))
        optimizer.zero_grad()
        kl.sum().backward()
        optimizer.step()
    return kl.detach().reshape(starts, len(x)).min(0).values


@pytest.mark.parametrize(
    ("objective", "limit"),
    [(ELBO(10, "score"), 0.1), (IWAE(5, "vimco"), 0.4)],
    ids=["score", "vimco"],
)
def test_trained_bits_explain_away(objective: Objective, limit: float, float64: Any) -> None:
    assert best_factorised_kl(SUMS).min() > 1.3
    guide = bits_guide()
    train(guide, objective, sum_of_bits, lambda: SUMS.repeat(30, 1), steps=300)
    kl = kl_to_posterior(guide.posterior(SUMS).log_prob(VALUES[:, None]), SUMS)
    assert kl.max() < limit  # the score has starts that end in a part of the modes, at 0.2 to 1.8


@pytest.mark.parametrize("gradient", ["score", "vimco"])
def test_score_gradients_are_those_of_enumeration(gradient: str, float64: Any) -> None:
    guide, x, objective = bits_guide((), 2), SUMS[1:2], IWAE(2, gradient)
    log_q = guide.posterior(x).log_prob(VALUES[:, None])[:, 0]
    bound = expected_bound(log_joint(x, 1.0)[:, 0] - log_q, log_q.exp(), 2)
    exact = torch.autograd.grad(-bound, list(guide.parameters()))
    draws = gradients(partial(sum_of_bits, noise=1.0), guide, objective, x.expand(2000, 1), 40)
    exact = torch.cat([part.flatten() for part in exact])
    assert_mean(draws, exact, MAX_Z, max_error=0.03)
