"""A prior learned as noise through a network: eight modes on a ring, seen with noise.

z is on a ring of radius 2, in one of eight Normals of scale 0.15, and x = z + 0.3 noise; data
are drawn anew each step. Prior and guide are trained together by DSIVI with J' prior draws;
the log-likelihood of 1000 other data is bounded with 50 particles and 2000 prior draws.

References:
    Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
    inference*, arXiv:1810.02789.
"""

from __future__ import annotations

from math import pi
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.distributions import SemiImplicitPrior
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.nn import ConditionalNormal, data_plate
from pyro_lvm.objectives import DSIVI

__all__ = ["RUNS", "Ring", "picture", "run"]

NOISE, WIDTH = 0.3, 0.15
BATCH, STEPS, RATE = 128, 2000, 3e-3
RUNS = {f"J' = {count}": count for count in (2, 10, 100)}


def ring(width: float) -> Any:
    """The eight modes, blurred."""
    angle = torch.arange(8) * pi / 4
    modes = 2 * torch.stack([angle.cos(), angle.sin()], -1)
    return dist.MixtureSameFamily(
        dist.Categorical(torch.ones(8)), dist.Normal(modes, width).to_event(1)
    )


DATA = ring((WIDTH**2 + NOISE**2) ** 0.5)


class Ring(PyroModule):
    """A semi-implicit prior on the plane, seen with Normal noise."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = SemiImplicitPrior(ConditionalNormal(10, 2, hidden=(64, 64)), 10)

    def forward(self, x: Tensor) -> None:
        with data_plate(len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def fitted(num_prior_mixing: int, steps: int) -> tuple[Ring, AmortizedNormal]:
    model = Ring()
    guide = AmortizedNormal(in_features=2, latent_features=2, hidden=(64, 64), covariance="full")
    objective = DSIVI(num_prior_mixing=num_prior_mixing, max_plate_nesting=1)
    parameters = nn.ModuleList([model, guide]).parameters()
    train(
        objective(model, guide),
        parameters,
        lambda: (DATA.sample((BATCH,)),),
        steps,
        RATE,
        per=BATCH,
    )
    return model, guide


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Log-likelihood of held-out data, nats: the bound, the truth's, and the best Normal's."""
    pyro.set_rng_seed(seed)
    model, guide = fitted(RUNS[name], steps or STEPS)
    x = DATA.sample((1000,))
    objective = DSIVI(50, num_prior_mixing=2000)
    bound = torch.cat([objective.bound(model, guide, part) for part in x.split(100)])
    many = DATA.sample((100_000,))
    normal = dist.MultivariateNormal(many.mean(0), many.T.cov())
    return {
        "log-likelihood, at least": bound.mean().item(),
        "standard error": bound.std().item() / len(x) ** 0.5,
        "same data, truth": DATA.log_prob(x).mean().item(),
        "same data, best Normal": normal.log_prob(x).mean().item(),
        "gap to the truth": (DATA.log_prob(x) - bound).mean().item(),
    }


@torch.no_grad()
def picture(steps: int | None = None) -> Figure:
    """Draws of z from the true prior and from those learned with few and many draws."""
    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    axes = figure.subplots(1, len(RUNS) + 1, sharex=True, sharey=True)
    draws = {"truth": ring(WIDTH).sample((2000,))}
    for name, count in RUNS.items():
        pyro.set_rng_seed(0)
        with torch.enable_grad():
            model, _ = fitted(count, steps or STEPS)
        with pyro.plate("draws", 2000):
            draws[name] = model.prior().sample()
    for axis, (name, z) in zip(axes, draws.items(), strict=True):
        axis.scatter(z[:, 0], z[:, 1], s=1)
        axis.set(title=name, aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
    return figure
