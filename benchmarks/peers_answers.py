r"""Answers of people to items, the two-parameter logistic model: unknowns of all and of each.

.. math:: y_{pi} \sim \mathrm{Bernoulli}(\sigma(e^{s_i} (a_p - d_i)))

The guide is a Normal for each unknown.
"""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks import peers_numpyro
from benchmarks.peers_case import Case
from benchmarks.peers_normals import Normals, log_normal

__all__ = ["answers"]

PEOPLE, ITEMS = 500, 40
SLOPE_SCALE = 0.5


def answers() -> Case:
    guide = Guide(PEOPLE, ITEMS)
    y = torch.rand(PEOPLE, ITEMS).round()
    return Case(
        title=f"2PL, {PEOPLE} people, {ITEMS} items",
        model=model,
        guide=guide,
        x=y,
        modules=guide,
        bound="ELBO",
        nesting=2,
        by_hand=lambda num_particles: by_hand(guide.normals, y, num_particles),
        peers=peers_numpyro.steps("answers", guide, y, "ELBO"),
    )


def model(y: Tensor) -> None:  # (people, items)
    items, people = pyro.plate("items", y.shape[1], dim=-1), pyro.plate("people", len(y), dim=-2)
    zero = y.new_zeros(())
    with items:
        log_slope = pyro.sample("log_slope", dist.Normal(zero, SLOPE_SCALE))
        difficulty = pyro.sample("difficulty", dist.Normal(zero, 1.0))
    with people:
        ability = pyro.sample("ability", dist.Normal(zero, 1.0))
        with items:
            logits = log_slope.exp() * (ability - difficulty)
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


class Guide(PyroModule):
    """A Normal for each slope, difficulty and ability."""

    def __init__(self, people: int, items: int) -> None:
        super().__init__()
        self.normals = Normals(log_slope=(items,), difficulty=(items,), ability=(people, 1))

    def forward(self, y: Tensor) -> None:
        with pyro.plate("items", y.shape[1], dim=-1):
            for name in ("log_slope", "difficulty"):
                pyro.sample(name, self.normals.of(name))
        with pyro.plate("people", len(y), dim=-2):
            pyro.sample("ability", self.normals.of("ability"))


def by_hand(normals: Normals, y: Tensor, num_particles: int) -> Tensor:
    """Minus the evidence lower bound of K draws."""
    log_slope, log_q_slope = normals.draws("log_slope", num_particles)  # (K, items)
    difficulty, log_q_difficulty = normals.draws("difficulty", num_particles)
    ability, log_q_ability = normals.draws("ability", num_particles)  # (K, people, 1)
    logits = log_slope.exp().unsqueeze(1) * (ability - difficulty.unsqueeze(1))
    surprise = binary_cross_entropy_with_logits(logits, y.expand_as(logits), reduction="sum")
    log_prior = log_normal(log_slope, 0.0, log(SLOPE_SCALE)).sum()
    log_prior = log_prior + log_normal(difficulty).sum() + log_normal(ability).sum()
    log_q = log_q_slope + log_q_difficulty + log_q_ability
    return (log_q - log_prior + surprise) / num_particles
