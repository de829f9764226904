"""Classes of MNIST from 300 digits: point estimates, objectives, implicit guides and NUTS.

40 principal components of the training digits in place of the pixels, 40-20-10, judged by 500
draws (NUTS: 300) on every fifth test digit: accuracy, mean log probability of the true class in
nats, Brier score, expected calibration error over 15 bins, and that of chance alone.
"""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks.bayesian_regression import RATE, Draws, drawn, fit
from benchmarks.bayesian_regression import RUNS as BY_OBJECTIVE
from benchmarks.sparse_mnist import digits
from pyro_lvm.diagnostics import class_calibration
from pyro_lvm.guides import ImplicitWeights, SemiImplicitWeights
from pyro_lvm.models import BayesianMLP
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AAE, SIVI

__all__ = ["RUNS", "projected", "run", "scores"]

ROWS, COMPONENTS, HIDDEN, PRIOR = 300, 40, (20,), 1.0
STEPS, MIXING, PARTICLES = 2000, 20, 10
EVERY = 5  # test digit

Pairs = tuple[Tensor, Tensor]


def few() -> tuple[Pairs, Pairs]:
    """Some training digits and every fifth of the test, with their classes."""
    (x, y), (other_x, other_y) = digits()
    rows = torch.randperm(len(x))[:ROWS]
    train, test = projected(x[rows], other_x[::EVERY])
    return (train, y[rows]), (test, other_y[::EVERY])


def projected(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of the first, of mean square 1 over all of them, in both."""
    centre = train.mean(0)
    axes = torch.linalg.svd(train - centre, full_matrices=False).Vh[:COMPONENTS]
    scale = ((train - centre) @ axes.T).square().mean().sqrt()
    first, second = ((x - centre) @ axes.T / scale for x in (train, test))
    return first, second


def implicit(model: BayesianMLP, data: Pairs, steps: int) -> Draws:
    """A hypernetwork without a density, by a discriminator of all weights."""
    size = sum(model.latent_features.values())
    guide = ImplicitWeights(model.latent_features)
    discriminator = Discriminator(size, hidden=(200, 200))
    objective = AAE(discriminator, num_particles=PARTICLES, contrast="adaptive")
    return fitted(model, guide, objective, data, steps, RATE / 10)


def hypernetwork(model: BayesianMLP, data: Pairs, steps: int) -> Draws:
    """A hypernetwork to the means and scales of Normals."""
    guide = SemiImplicitWeights(model.latent_features, noise_features=20, noise_hidden=(60, 60))
    objective = SIVI(PARTICLES, num_mixing=MIXING)
    return fitted(model, guide, objective, data, steps, RATE / 2)


def fitted(
    model: nn.Module, guide: nn.Module, objective: Any, data: Pairs, steps: int, rate: float
) -> Draws:
    fit(model, guide, objective, data, steps, rate)
    return drawn(model, guide, data)


SHARED = [
    "point estimate",
    "ensemble of 5",
    "ELBO",
    "IWAE dreg, K=10",
    "ELBO, then MHAcceptance",
]
RUNS: dict[str, Any] = {name: BY_OBJECTIVE[name] for name in SHARED} | {
    "hypernetwork, SIVI": hypernetwork,
    "hypernetwork, AAE": implicit,
    "NUTS": BY_OBJECTIVE["NUTS"],
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """What one contender predicts."""
    pyro.set_rng_seed(seed)
    data, test = few()
    model = BayesianMLP(COMPONENTS, HIDDEN, 10, prior_scale=PRIOR)
    found = RUNS[name](model, data, steps=steps or STEPS)
    draws, accepted = found if isinstance(found, tuple) else (found, None)
    outcome = scores(model, draws, *test)
    return outcome if accepted is None else outcome | {"acceptance": accepted}


@torch.no_grad()
def scores(model: BayesianMLP, draws: Draws, x: Tensor, y: Tensor) -> dict[str, float]:
    """Of the mixture over draws."""
    probabilities = model.outcome(x, draws).probs.mean(0)
    found = class_calibration(probabilities, y)
    return {
        "accuracy": 100 * found.accuracy,
        "log p": found.log_likelihood,
        "Brier": found.brier,
        "ECE": found.error,
        "by chance": found.error_by_chance,
        "confidence": 100 * found.confidence,
    }
