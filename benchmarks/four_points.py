"""Four pictures of four pixels: the toy of the AVB paper, judged by the exact likelihood.

Data are the four one-hot pictures, the latent has two dims, so that the best model splits the
plane in four and reaches -log 4. A guide of independent Normals cannot tile the plane and pays
for it; an implicit guide can.

References:
    Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722,
    section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.diagnostics import ratio_quality
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAVB

__all__ = ["RUNS", "exact_nll", "falling", "run", "train"]

Program = Callable[..., Any]

WIDTHS = (64, 64)
DATA = torch.eye(4)
DRAWS = 256  # of the guide in a step
STEPS = 6000
RATE = 1e-3  # of the programs: level for half of the steps, then falling to 0
DISCRIMINATOR_RATE = 2e-3  # level: where it falls too, the programs run ahead of T


def discriminator() -> Discriminator:
    return Discriminator(2, context_features=4, hidden=(128, 128))


def normal_guide() -> AmortizedNormal:
    return AmortizedNormal(in_features=4, latent_features=2, hidden=WIDTHS)


def implicit_guide() -> ImplicitGuide:
    return ImplicitGuide(
        in_features=4,
        latent_features=2,
        hidden=WIDTHS[:1],
        noise_features=32,
        noise_hidden=WIDTHS,
        context_features=64,
    )


@dataclass(frozen=True)
class Run:
    """What is trained, and on how many copies of the data."""

    objective: Callable[[], Objective]
    guide: Callable[[], torch.nn.Module]
    copies: int = 1


def falling(rate: float, steps: int) -> Callable[[int], float]:
    """``rate`` for half of the steps, then linearly to 0."""
    return lambda step: rate * min(1.0, 2.0 * (1.0 - step / steps))


def _iwavb(gradient: str) -> IWAVB:
    return IWAVB(discriminator(), 5, gradient, discriminator_lr=DISCRIMINATOR_RATE)


RUNS = {
    "VAE, ELBO": Run(lambda: ELBO(DRAWS // 4), normal_guide),
    "AVB": Run(
        lambda: AVB(discriminator(), DRAWS // 4, discriminator_lr=DISCRIMINATOR_RATE),
        implicit_guide,
    ),
    "IWAVB dreg, K=5": Run(partial(_iwavb, "dreg"), implicit_guide, DRAWS // 20),
    "IWAVB stl, K=5": Run(partial(_iwavb, "stl"), implicit_guide, DRAWS // 20),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair; nats per datum. The seed decides every number."""
    pyro.set_rng_seed(seed)
    chosen = RUNS[name]
    model = VAE(in_features=4, latent_features=2, hidden=WIDTHS)
    guide, objective = chosen.guide(), chosen.objective()
    x, steps = DATA.repeat(chosen.copies, 1), steps or STEPS
    train(objective, model, guide, x, steps, falling(RATE, steps))
    found = {
        "exact NLL": exact_nll(model),
        "minus the objective": -objective.bound(model, guide, DATA.repeat(500, 1)).mean().item(),
    }
    if objective.ratio is not None:
        quality = ratio_quality(objective, model, guide, DATA, num_samples=2000)
        found |= {
            "T accuracy": quality.accuracy.mean().item(),
            "T calibration error": quality.calibration_error.item(),
        }
    return found


def train(
    objective: Objective, model: Program, guide: Program, x: Tensor, steps: int, lr: Schedule
) -> None:
    """Adam on all parameters of the programs, at a rate that is a number or a schedule."""
    module = objective(model, guide)
    optimiser = torch.optim.Adam(module.parameters(), 1.0, betas=(0.5, 0.999))
    rate = lr if callable(lr) else lambda step: lr
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (module(x) / len(x)).backward()
        optimiser.step()
        scheduler.step()


def exact_nll(model: VAE, limit: float = 6.0, num_points: int = 601) -> float:
    """Minus the mean log-likelihood of the four data, nats, by quadrature over z on a grid."""
    axis = torch.linspace(-limit, limit, num_points)
    z = torch.cartesian_prod(axis, axis)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    cell = 2 * (axis[1] - axis[0]).log()
    with torch.no_grad():
        log_x = model.decode(z).log_prob(DATA.unsqueeze(1))  # (4, points)
    return -(torch.logsumexp(log_x + log_p, -1) + cell).mean().item()
