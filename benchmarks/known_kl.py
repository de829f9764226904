"""The KL divergence that a trained discriminator reports, where the true one is known.

The guide is a mixture of two Normals of scale 0.4 at (-1, ..., -1) and (1, ..., 1), drawn from
as if it had no density; the prior is the standard Normal. The true divergence is a Monte Carlo
mean of the known log-ratio, with a standard error below 0.01 nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.diagnostics import ratio_quality
from pyro_lvm.distributions import Implicit
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AVB

__all__ = ["RUNS", "Mixture", "run"]

SCALE = 0.4
NOISE = dist.Normal(0.0, 1.0)
DRAWS = 512  # of each kind in a step
STEPS = 3000
MANY_DRAWS, FEWER_STEPS = 4096, 1500
MANY = "plain, 4096 draws, rate from 1e-3 to 0"
KINDS: dict[str, dict[str, Any]] = {
    "plain, rate 3e-4": {"discriminator_lr": 3e-4},
    "plain, rate 1e-3": {"discriminator_lr": 1e-3},
    "adaptive contrast, rate 3e-4": {"discriminator_lr": 3e-4, "contrast": "adaptive"},
    "adaptive contrast, rate 1e-3": {"discriminator_lr": 1e-3, "contrast": "adaptive"},
    "average of weights, rate 1e-3": {"discriminator_lr": 1e-3, "ema": 0.99},
    "R1 with gamma = 1, rate 1e-3": {"discriminator_lr": 1e-3, "r1": 1.0},
    "spectral norm, rate 1e-3": {"discriminator_lr": 1e-3, "spectral_norm": True},
}
RUNS = {f"d = {size}, {kind}": (size, kind) for size in (2, 8, 16) for kind in KINDS}
RUNS |= {f"d = {size}, {MANY}": (size, MANY) for size in (2, 8)}


@dataclass(frozen=True)
class Mixture:
    """The two programs, in ``size`` dims, and the density that they do not tell."""

    size: int

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(self.size), 1.0).to_event(1))
            pyro.sample("x", NOISE, obs=x)  # says nothing of z: the bound is log p(x) - KL

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(self.draw, event_dim=1, shape=(1, self.size)))

    def draw(self, sample_shape: torch.Size) -> Tensor:  # (*sample_shape, 1, size)
        sign = torch.randint(2, (*sample_shape, 1, 1)) * 2 - 1
        return sign + SCALE * torch.randn(*sample_shape, 1, self.size)

    def log_ratio(self, z: Tensor) -> Tensor:
        """log q(z) - log p(z), nats."""
        modes = dist.Normal(torch.tensor([[-1.0], [1.0]]), SCALE)
        log_q = modes.log_prob(z.unsqueeze(-2)).sum(-1).logsumexp(-1) - torch.tensor(2.0).log()
        return log_q - dist.Normal(0.0, 1.0).log_prob(z).sum(-1)


def _avb(size: int, draws: int = DRAWS, spectral_norm: bool = False, **options: Any) -> AVB:
    discriminator = Discriminator(size, hidden=(128, 128), spectral_norm=spectral_norm)
    return AVB(discriminator, draws, context=lambda x: None, **options)


def _falling(steps: int) -> dict[str, Any]:
    return {"draws": MANY_DRAWS, "discriminator_lr": lambda step: 1e-3 * max(0.0, 1 - step / steps)}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one discriminator against the fixed guide and judge it on fresh draws."""
    pyro.set_rng_seed(seed)
    size, kind = RUNS[name]
    pair, x = Mixture(size), torch.zeros(1)
    steps = steps or (FEWER_STEPS if kind == MANY else STEPS)
    objective = _avb(size, **(_falling(steps) if kind == MANY else KINDS[kind]))
    for _ in range(steps):
        objective.differentiable_loss(pair.model, pair.guide, x)
    true = pair.log_ratio(pair.draw(torch.Size([200_000]))).mean().item()
    bounds = torch.stack([objective.bound(pair.model, pair.guide, x) for _ in range(100)])
    found = (NOISE.log_prob(x) - bounds).mean()
    quality = ratio_quality(objective, pair.model, pair.guide, x, num_samples=50_000)
    return {
        "true KL": true,
        "found KL": found.item(),
        "error in %": 100 * (found.item() / true - 1),
        "accuracy": quality.accuracy.item(),
        "calibration error": quality.calibration_error.item(),
        "mean size of T": quality.logit.item(),
        "largest size of T": quality.largest_logit.item(),
        "saturated": float(quality.is_saturated),
    }
