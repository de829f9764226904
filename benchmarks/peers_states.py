r"""A state space of 16 steps, each a site of its own: Pyro's handlers at their dearest.

.. math:: z_t \sim N(\tanh(A z_{t-1} + b), s^2), \quad x_t \sim N(C z_t + d, r^2)

The guide draws each state given its datum and the state before.
"""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks import peers_numpyro
from benchmarks.peers_case import Case
from benchmarks.peers_normals import log_normal

__all__ = ["states"]

BATCH, STEPS, FEATURES, LATENT, HIDDEN = 32, 16, 8, 4, 16


def states() -> Case:
    model, guide = Model(), Guide()
    modules = nn.ModuleDict({"model": model, "guide": guide})
    x = torch.randn(BATCH, STEPS, FEATURES)
    return Case(
        title=f"state space, {STEPS} steps, batch {BATCH}",
        model=model,
        guide=guide,
        x=x,
        modules=modules,
        by_hand=lambda num_particles: by_hand(model, guide, x, num_particles),
        peers=peers_numpyro.steps("states", modules, x, "IWAE"),
    )


class Model(PyroModule):
    """Sites "z_t" and "x_t" of every step t in plate "data"."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = nn.Linear(LATENT, LATENT)
        self.emission = nn.Linear(LATENT, FEATURES)
        self.log_scale = nn.Parameter(torch.zeros(LATENT))
        self.log_noise = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> None:
        scale, noise = self.log_scale.exp(), self.log_noise.exp()
        loc = torch.zeros_like(scale)
        with pyro.plate("data", len(x)):
            for t, row in enumerate(x.unbind(1)):
                z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(self.emission(z), noise).to_event(1), obs=row)
                loc = self.transition(z).tanh()


class Guide(PyroModule):
    """A network of each datum, plus a linear map of the state before."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT)
        self.encoder = nn.Sequential(*layers)
        self.before = nn.Linear(LATENT, 2 * LATENT)

    def forward(self, x: Tensor) -> None:
        before: Tensor | float = 0.0
        with pyro.plate("data", len(x)):
            for t, given in enumerate(self.encoder(x).unbind(1)):
                loc, log_scale = (given + before).chunk(2, -1)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, log_scale.tanh().exp()).to_event(1))
                before = self.before(z)


def by_hand(model: Model, guide: Guide, x: Tensor, num_particles: int) -> Tensor:
    """Minus the importance-weighted bound of K draws."""
    log_weights: Tensor | float = 0.0
    loc: Tensor | float = 0.0
    given = guide.encoder(x).expand(num_particles, -1, -1, -1)  # (K, batch, steps, 2 latent)
    before: Tensor | float = 0.0
    for row, features in zip(x.unbind(1), given.unbind(2)):
        q_loc, raw = (features + before).chunk(2, -1)
        q_log_scale = raw.tanh()
        z = q_loc + q_log_scale.exp() * torch.randn_like(q_loc)
        log_p = log_normal(z, loc, model.log_scale).sum(-1)
        log_p = log_p + log_normal(row, model.emission(z), model.log_noise).sum(-1)
        log_weights = log_weights + log_p - log_normal(z, q_loc, q_log_scale).sum(-1)
        loc, before = model.transition(z).tanh(), guide.before(z)
    return -(torch.logsumexp(log_weights, 0) - log(num_particles)).sum()
