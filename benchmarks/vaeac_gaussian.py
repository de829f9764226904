"""VAEAC on a table whose conditional distributions are known: is its latent used, and is it right?

Six dependent columns: factor analysis of two factors, with a twentieth of the noise variances of
the VGI paper's toy, standardised. Each entry is observed with probability 1/2. The product of
the true one-variable conditionals is the best that a model without dependence between what it
predicts can do; to beat it, the latent must carry the dependence.

References:
    Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
    arXiv:1806.02382.
    Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model estimation
    from incomplete data*, arXiv:2111.13180, for the toy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm import fit, impute
from pyro_lvm.distributions import GaussianLikelihood
from pyro_lvm.guides import ConditioningGuide
from pyro_lvm.missing import RandomMasks, hide, mcar
from pyro_lvm.models import VAEAC
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["RUNS", "Conditional", "conditionals", "covariance", "judged", "run", "trained"]

FACTORS = [[-5.0, -2.0], [4.0, 0.0], [3.0, -1.0], [-3.0, -3.0], [1.0, 5.0], [-1.0, 2.0]]
NOISE = [50.4794, 30.0988, 6.7666, 17.3357, 40.9839, 25.1122]
TRAINING, TEST, BATCH, STEPS, RATE = 20_000, 2000, 128, 4000, 1e-3
SIZES: dict[str, Any] = {"latent_features": 8, "width": 64, "depth": 3}


class UnitScale(GaussianLikelihood):
    """Real columns with noise of scale 1, as in the published code for tables."""

    def __init__(self) -> None:
        super().__init__(len(NOISE))
        self.noise_scale_unconstrained.requires_grad_(requires_grad=False)


class Setting(NamedTuple):
    likelihood: Any
    objective: Objective


RUNS = {
    "learned scale, IWAE 5 dreg": Setting("gaussian", IWAE(5, gradient="dreg")),
    "scale 1, ELBO": Setting(UnitScale, ELBO()),
}


class Conditional(NamedTuple):
    """Of the rows that have one mask: which rows, what is predicted, and its exact Normal."""

    rows: Tensor
    predicted: Tensor
    normal: dist.MultivariateNormal


def covariance() -> Tensor:
    """Of the six columns, ``(6, 6)``, float64."""
    factors = torch.tensor(FACTORS, dtype=torch.float64)
    joint = factors @ factors.T + 0.05 * torch.tensor(NOISE, dtype=torch.float64).diag()
    scale = joint.diagonal().sqrt()
    return joint / scale / scale[:, None]


def conditionals(x: Tensor, observed: Tensor) -> Iterator[Conditional]:
    """The exact distributions of what is not observed, mask by mask; rows with nothing left out."""
    joint = covariance()
    masks, group = observed.unique(dim=0, return_inverse=True)
    for number, o in enumerate(masks):
        rows, t = (group == number).nonzero().squeeze(1), ~o
        if t.any():
            gain = torch.linalg.solve(joint[o][:, o], joint[o][:, t]).T
            left = joint[t][:, t] - gain @ joint[o][:, t]
            mean = x[rows][:, o].double() @ gain.T
            yield Conditional(rows, t, dist.MultivariateNormal(mean, left))


def draws(num_rows: int) -> Tensor:
    normal = dist.MultivariateNormal(torch.zeros(len(NOISE), dtype=torch.float64), covariance())
    return normal.sample((num_rows,)).float()


def trained(setting: Setting, seed: int, steps: int) -> tuple[VAEAC, ConditioningGuide]:
    likelihood = setting.likelihood if isinstance(setting.likelihood, str) else setting.likelihood()
    model = VAEAC(len(NOISE), likelihood=likelihood, **SIZES)
    guide = ConditioningGuide(in_features=len(NOISE), **SIZES)
    fit(
        model,
        guide,
        draws(TRAINING),
        setting.objective,
        transform=RandomMasks(mcar, rate=0.5),
        max_steps=steps,
        batch_size=BATCH,
        lr=RATE,
        lr_scheduler="cosine",
        seed=seed,
        diagnostic_particles=0,
    )
    return model, guide


@torch.no_grad()
def judged(model: VAEAC, guide: ConditioningGuide, x: Tensor, observed: Tensor) -> dict[str, float]:
    """What the model says of test data, beside the exact answers; nats a row."""
    imputed = impute(model, model.prior_guide, hide(x, observed), num_samples=200).values
    low, high = imputed.quantile(torch.tensor([0.05, 0.95]), 0)
    exact, product = torch.zeros(len(x)).double(), torch.zeros(len(x)).double()
    error = torch.zeros(x.shape).double()
    for rows, t, normal in conditionals(x, observed):
        predicted = x[rows][:, t].double()
        exact[rows] = normal.log_prob(predicted)
        alone = dist.Normal(normal.mean, normal.stddev)
        product[rows] = alone.log_prob(predicted).sum(-1)
        error[rows[:, None], t.nonzero().squeeze(1)] = imputed.mean(0)[rows][:, t] - normal.mean
    bound = IWAE(100).bound(model, guide, x, observed)
    prior = pyro.poutine.trace(model.prior_guide).get_trace(x, observed).nodes["z"]["fn"]
    divergence = torch.distributions.kl_divergence(guide.posterior(x, observed), prior)
    return {
        "IWAE bound, K = 100": bound.mean().item(),
        "below exact": (exact - bound).mean().item(),
        "exact": exact.mean().item(),
        "product of one-variable conditionals": product.mean().item(),
        "ELBO": ELBO(100).bound(model, guide, x, observed).mean().item(),
        "KL(q, prior network)": divergence.mean().item(),
        "90 % intervals cover": ((low <= x) & (x <= high))[~observed].float().mean().item(),
        "error of the mean": error[~observed].square().mean().sqrt().item(),
    }


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    pyro.set_rng_seed(seed)
    model, guide = trained(RUNS[name], seed, steps or STEPS)
    x = draws(TEST)
    return judged(model, guide, x, mcar(x, seed=seed))
