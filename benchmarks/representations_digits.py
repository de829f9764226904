"""Digits in a latent vector: a VAE beside three games, judged without their critics.

8 by 8 digits as real numbers, their 17 grey values blurred by uniform noise that is drawn anew
each step. One model (64-100-100-16, Gaussian noise a pixel) and one Normal guide for all. Of
397 test digits:

- "reconstruction": root mean squared error of a grey value, decoded from the guide's mean.
- "content kept": share of these that a classifier of training digits gives the right class.
- "probe": accuracy of a linear classifier of the guide's means, trained on all labels.
- "Frechet": distance of Normals with the moments of as many draws of the model, without their
  noise, and of the test digits, in the space of pixels; 0.12 to 0.15 for as many training digits.
- "code sd": of the guide's draws, a mean over the latents; the prior's is 1.
- "NLL": nats a digit by 1000 draws of the guide, an upper bound. VAE-GAN has no density of data.

References:
    Dumoulin et al. (2017), *Adversarially learned inference*, arXiv:1606.00704.
    Larsen et al. (2016), *Autoencoding beyond pixels using a learned similarity metric*,
    arXiv:1512.09300.
    Alanov et al. (2018), *Pairwise augmented GANs with adversarial reconstruction loss*,
    arXiv:1810.04920.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from scipy.linalg import sqrtm
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.training import train
from pyro_lvm.data import digits
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ALI, ELBO, PAGAN, VAEGAN

__all__ = ["RUNS", "run", "shifted"]

SIDE, PIXELS, LATENTS, HIDDEN = 8, 64, 16, (100, 100)
STEPS, BATCH = 2000, 100
RATE = 1e-3  # of programs and of critics
NOISE = 0.2  # of the model at first
NUM_DRAWS = 1000


def shifted(x: Tensor) -> Tensor:
    """Pictures ``(B, 64)`` moved by up to a pixel each way, at random, the edge reflected."""
    rows = pad(x.reshape(-1, 1, SIDE, SIDE), (1, 1, 1, 1), mode="reflect")
    moves = rows.unfold(2, SIDE, 1).unfold(3, SIDE, 1).reshape(len(x), 9, PIXELS)
    return moves[torch.arange(len(x)), torch.randint(9, (len(x),))]


def blurred(x: Tensor) -> Tensor:
    """Grey values 0 to 16 sixteenths to real numbers from 0 to 1."""
    return (16 * x + torch.rand_like(x)) / 17


def _critic(latents: int, data: int | None = None) -> Discriminator:
    return Discriminator(latents, data, hidden=(128, 128))


def _ali() -> Objective:
    return ALI(_critic(LATENTS, PIXELS), discriminator_lr=RATE)


def _pagan() -> Objective:
    critics = _critic(LATENTS), _critic(PIXELS), _critic(PIXELS, PIXELS)
    return PAGAN(*critics, shifted, discriminator_lr=RATE)


@dataclass(frozen=True)
class Run:
    """An objective, and whether it trains a density of the data."""

    objective: Callable[[], Objective]
    has_density: bool = True


RUNS = {
    "VAE": Run(ELBO),
    "ALI": Run(_ali),
    "PAGAN": Run(_pagan),
    "VAE-GAN": Run(
        lambda: VAEGAN(_critic(PIXELS), critic_weight=0.1, discriminator_lr=RATE),
        has_density=False,
    ),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair under one objective and judge it."""
    pyro.set_rng_seed(seed)
    data, chosen = digits(None, num_validation=0), RUNS[name]
    x = data.train.flatten(1)
    model = VAE(PIXELS, LATENTS, HIDDEN, "gaussian", data_mean=x.mean(0))
    model.likelihood.noise_scale = torch.full((PIXELS,), NOISE)
    guide = AmortizedNormal(in_features=PIXELS, latent_features=LATENTS, hidden=HIDDEN)

    def batch() -> tuple[Tensor]:
        return (blurred(x[torch.randint(len(x), (BATCH,))]),)

    module = chosen.objective()(model, guide)
    train(module, module.parameters(), batch, steps or STEPS, RATE, per=BATCH)
    pyro.set_rng_seed(0)
    return judged(model, guide, data, chosen.has_density)


@torch.no_grad()
def judged(
    model: VAE, guide: AmortizedNormal, data: DataSplits, has_density: bool
) -> dict[str, float]:
    """What model and guide are worth on the test digits."""
    train_x, x = (blurred(part.flatten(1)) for part in (data.train, data.test))
    codes = guide.posterior(x)["z"]
    copies = model.decode(codes.mean).mean
    made = model.decode(torch.randn(len(x), LATENTS)).mean
    labels = data.labels["train"]
    probe = _classifier(guide.posterior(train_x)["z"].mean, labels)
    found = {
        "reconstruction": (copies - x).square().mean().sqrt().item(),
        "content kept": _classifier(train_x, labels).score(copies, data.labels["test"]),
        "probe": probe.score(codes.mean, data.labels["test"]),
        "Frechet": frechet(made, x),
        "code sd": codes.sample((50,)).flatten(0, 1).std(0).mean().item(),
    }
    if has_density:
        evidence = log_evidence(model, guide, x, num_samples=NUM_DRAWS)
        found["NLL"] = -evidence.value.mean().item()
    return found


def _classifier(x: Tensor, labels: Tensor) -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(x.numpy(), labels.numpy())


def frechet(first: Tensor, second: Tensor) -> float:
    """Squared distance of the Normals with the moments of two samples ``(n, D)``."""
    a, b = np.cov(first.numpy().T), np.cov(second.numpy().T)
    means = (first.mean(0) - second.mean(0)).square().sum().item()
    return float(means + np.trace(a + b - 2 * sqrtm(a @ b).real))
