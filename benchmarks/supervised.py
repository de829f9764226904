"""What labels do to an encoder: supervised VAEs against the exact posterior of their own models.

Data of 8 features from three factors, of which the weakest makes the label; factor analysis with
two latents, a label that is linear in them, and an encoder that contains the exact posterior. By
the likelihood alone the weakest factor is left out. The supervised VAE is trained by the ELBO of
data and labels, and by second-order supervision (SOS); "VAE" is trained without labels, and
predicts them afterwards. "limit of SOS" is the maximum of log p(x) + weight * E log p(y|z), z from
the model's exact posterior, which is what SOS would climb to if its guide were always at its
optimum. 1000 labelled rows, judged on 1000 others, in float64:

- the mean of KL(q(z|x) || p(z|x)), p(z|x) the exact posterior of the learned model, nats;
- R2 of the labels by the encoder's means, and by those of that posterior;
- log p(x), exact, nats a row.

Prints a table. Finished runs are kept in a file in ``results``: started again, it goes on with
the others.

    python -m benchmarks.supervised --seeds 3

References:
    Tu, Talbot, Gallagher, Carlson (2021), *Supervising the decoder of variational autoencoders
    to improve scientific utility*, arXiv:2109.04561.
"""

from __future__ import annotations

import sys
from functools import partial

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from benchmarks.suite import Suite
from benchmarks.training import train
from pyro_lvm.distributions import GaussianLikelihood
from pyro_lvm.guides import AmortizedNormal, WithoutLabels
from pyro_lvm.models import FactorAnalysis, SupervisedVAE
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, SecondOrderELBO
from pyro_lvm.training import CompiledLoss

__all__ = ["RUNS", "SUITE", "run"]

FEATURES, LATENTS, ROWS = 8, 2, 1000
STRENGTHS, NOISE, LABEL_NOISE = (0.8, 0.7, 0.4), 0.7, 0.3
DRAWS, RATE, STEPS, STEP_SIZE = 4, 1e-2, 800, 0.02

RUNS = {
    "VAE": ("none", 1.0),
    "supervised VAE, weight 1": ("ELBO", 1.0),
    "supervised VAE, weight 10": ("ELBO", 10.0),
    "supervised VAE, weight 100": ("ELBO", 100.0),
    "SOS-VAE, weight 10": ("SOS", 10.0),
    "SOS-VAE, weight 100": ("SOS", 100.0),
    "SOS-VAE, weight 1000": ("SOS", 1000.0),
    "limit of SOS, weight 10": ("limit", 10.0),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair and compare its encoder with the exact posterior."""
    pyro.set_rng_seed(seed)
    how, weight = RUNS[name]
    data, test = draw(seed), draw(seed + 1000, seed)
    if how == "limit":
        model = limit(weight, *data)
        return judged(model, model.model.posterior(test[0]), *test)
    model = supervised(weight)
    encoder = AmortizedNormal(
        in_features=FEATURES, latent_features=LATENTS, hidden=(), covariance="full"
    ).double()
    train_pair(how, model, WithoutLabels(encoder), *data, steps or STEPS)
    return judged(model, encoder.posterior(test[0])["z"], *test)


def supervised(weight: float) -> SupervisedVAE:
    factors, label = FactorAnalysis(FEATURES, LATENTS), GaussianLikelihood(1)
    model = SupervisedVAE(factors, label, latent_features=LATENTS, label_weight=weight)
    return model.double()


def train_pair(
    how: str, model: SupervisedVAE, guide: WithoutLabels, x: Tensor, y: Tensor, steps: int
) -> None:
    def fit(objective: Objective, *data: Tensor) -> None:
        loss = CompiledLoss(objective, model, guide, backend="graph")
        parameters = [p for p in loss.parameters() if p.requires_grad]
        train(loss, parameters, lambda: data, steps, RATE, per=ROWS)

    if how == "none":
        fit(ELBO(DRAWS, "stl"), x)
        nn.ModuleList([model.model, guide]).requires_grad_(False)
    fit(SecondOrderELBO(DRAWS, "stl", step_size=STEP_SIZE) if how == "SOS" else ELBO(DRAWS), x, y)


def limit(weight: float, x: Tensor, y: Tensor) -> SupervisedVAE:
    """The best of ten maxima, by L-BFGS from random starts."""
    found = [_climb(supervised(weight), weight, x, y) for _ in range(10)]
    return max(found, key=lambda model: _criterion(model, weight, x, y).item())


def _climb(model: SupervisedVAE, weight: float, x: Tensor, y: Tensor) -> SupervisedVAE:
    with torch.no_grad():
        model.model.loading.mul_(5.0)  # away from the saddle at 0
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=300, history_size=30, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -_criterion(model, weight, x, y)
        value.backward()
        return value

    optimiser.step(loss)
    return model


def _criterion(model: SupervisedVAE, weight: float, x: Tensor, y: Tensor) -> Tensor:
    """Mean of log p(x) + weight * E log p(y|z) over rows, nats."""
    posterior, label = model.model.posterior(x), model.predict(model.model.posterior(x).mean)
    slope, scale = model.predictor.layers[0].weight, model.labels.noise_scale
    spread = (slope @ posterior.covariance_matrix @ slope.mT)[..., 0, 0]
    log_label = label.log_prob(y.unsqueeze(-1)) - 0.5 * spread / scale**2
    return (model.model.log_evidence(x) + weight * log_label).mean()


def draw(seed: int, factors: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows ``(1000, 8)`` and labels ``(1000,)``; the factors' loadings by a seed of their own."""
    normal = partial(torch.randn, dtype=torch.float64)
    loadings = torch.Generator().manual_seed(seed if factors is None else factors)
    strengths = torch.tensor(STRENGTHS, dtype=torch.float64)
    loading = normal(FEATURES, 3, generator=loadings) * strengths
    generator = torch.Generator().manual_seed(seed + 1)
    z = normal(ROWS, 3, generator=generator)
    x = z @ loading.T + NOISE * normal(ROWS, FEATURES, generator=generator)
    return x, z[:, -1] + LABEL_NOISE * normal(ROWS, generator=generator)


@torch.no_grad()
def judged(
    model: SupervisedVAE, found: MultivariateNormal, x: Tensor, y: Tensor
) -> dict[str, float]:
    """An encoder's ``found`` posterior of rows beside the exact one."""
    exact = model.model.posterior(x)
    return {
        "KL": kl_divergence(found, exact).mean().item(),
        "R2, encoder": r2(model, found.mean, y),
        "R2, posterior": r2(model, exact.mean, y),
        "log p(x)": model.model.log_evidence(x).mean().item(),
    }


def r2(model: SupervisedVAE, z: Tensor, y: Tensor) -> float:
    error = model.predict(z).mean[:, 0] - y
    return (1.0 - error.square().mean() / y.var(correction=0)).item()


SUITE = Suite("supervised", __doc__, {"supervised": sys.modules[__name__]})


if __name__ == "__main__":
    SUITE.main()
