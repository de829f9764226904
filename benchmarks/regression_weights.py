"""Weights of a Bayesian logistic regression on real data: guides beside NUTS.

Breast cancer (Wisconsin), the first 50 training rows, the first six covariates, standardised,
and an intercept; weights N(0, 25). With so few data the posterior is skewed and its weights
trade off against each other. Errors are those of 20,000 draws of a guide against 2000 of
Pyro's NUTS; the first half of the chain against the second shows how much of them is the
chain's own: about half of that.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.data import load
from pyro_lvm.guides import SemiImplicitWeights
from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.models import BayesianLogisticRegression
from pyro_lvm.objectives import DSIVI, ELBO, SIVI

__all__ = ["RUNS", "errors", "picture", "run"]

CHAINS = Path("runs/semi_implicit")
ROWS, COLUMNS, PRIOR = 50, 6, 5.0
SIZE = COLUMNS + 1
STEPS, DRAWS, MIXING = 2500, 16, 50
RATE, NORMAL_RATE = 1e-2, 3e-2  # a Normal's parameters have further to go
SHOWN = [0, 2, 4, 6]


@cache
def data() -> tuple[Tensor, Tensor]:
    """Covariates ``(50, 7)`` with the intercept last, and classes ``(50,)``."""
    table = load("breast_cancer")
    x = torch.cat([table.train[:ROWS, :COLUMNS], torch.ones(ROWS, 1)], 1)
    return x, table.labels["train"][:ROWS].to(x.dtype)


def model(x: Tensor, y: Tensor) -> None:
    BayesianLogisticRegression(SIZE, prior_scale=PRIOR)(x, y)


class NormalWeights(PyroModule):
    """A Normal of "weights"."""

    def __init__(self, covariance: str) -> None:
        super().__init__()
        self.family = COVARIANCES[covariance]
        self.raw = nn.Parameter(torch.zeros(self.family.num_outputs(SIZE, 1)))

    def forward(self, *args: Tensor) -> None:
        pyro.sample("weights", self.family.normal(self.raw, SIZE, 1))


def many(program: Any) -> Any:
    """``DRAWS`` runs side by side: the loss is the sum of their bounds."""

    def run(*args: Tensor) -> None:
        with pyro.plate("draws", DRAWS, dim=-2):
            program(*args)

    return run


def chain(seed: int, num_samples: int = 2000) -> Tensor:
    """Draws of NUTS, kept in a file."""
    path = CHAINS / f"nuts_{seed}_{num_samples}.npy"
    if not path.is_file():
        pyro.set_rng_seed(seed)
        kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
        sampler = MCMC(kernel, num_samples, warmup_steps=300, disable_progbar=True)
        sampler.run(*data())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, sampler.get_samples()["weights"].numpy())
    return torch.from_numpy(np.load(path))


def fitted(guide: nn.Module, steps: int) -> nn.Module:
    mixes = isinstance(guide, SemiImplicitWeights)
    objective = SIVI(num_mixing=MIXING) if mixes else ELBO()
    module = objective(many(BayesianLogisticRegression(SIZE, prior_scale=PRIOR)), many(guide))
    rate = RATE if mixes else NORMAL_RATE
    train(module, list(guide.parameters()), data, steps, rate, per=DRAWS)
    return guide


def semi_implicit(conditional: str) -> SemiImplicitWeights:
    return SemiImplicitWeights(
        {"weights": SIZE}, conditional=conditional, noise_features=20, noise_hidden=(60, 60)
    )


GUIDES = {
    "independent Normals": partial(NormalWeights, "diagonal"),
    "full Normal": partial(NormalWeights, "full"),
    "SIVI, diagonal": partial(semi_implicit, "diagonal"),
    "SIVI, full": partial(semi_implicit, "full"),
}
RUNS = [*GUIDES, "half of the chain against half"]


@torch.no_grad()
def draws(guide: nn.Module, count: int = 20_000) -> Tensor:
    with pyro.plate("draws", count):
        sites = pyro.poutine.trace(guide).get_trace(*data()).nodes
    value: Tensor = sites["weights"]["value"]
    return value


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Errors of one guide, and its bound in nats."""
    pyro.set_rng_seed(seed)
    reference = chain(0)
    if name not in GUIDES:
        return errors(*reference.chunk(2))
    guide = fitted(GUIDES[name](), steps or STEPS)
    lower, upper = DSIVI.sandwich(model, guide, *data(), num_mixing=1000, num_particles=500)
    bound = {"ELBO, at least": lower.item(), "ELBO, at most": upper.item()}
    return errors(draws(guide), reference) | bound


def errors(found: Tensor, reference: Tensor) -> dict[str, float]:
    """Of the draws ``(n, D)`` of a guide against those of the posterior."""
    scale = reference.std(0)
    correlation = (found.T.corrcoef() - reference.T.corrcoef()).abs()
    pairs = correlation[tuple(torch.triu_indices(len(scale), len(scale), 1))]
    return {
        "mean, in scales": ((found.mean(0) - reference.mean(0)) / scale).abs().mean().item(),
        "log scale": (found.std(0) / scale).log().abs().mean().item(),
        "correlation": pairs.mean().item(),
        "largest correlation error": pairs.max().item(),
        "marginals, KS": _distance(found, reference).mean().item(),
    }


def _distance(first: Tensor, second: Tensor) -> Tensor:  # (D,)
    """Largest difference of the two distribution functions of each column."""
    every = torch.cat([first, second]).T.contiguous()
    shares = [
        torch.searchsorted(each.T.contiguous().sort(-1).values, every, right=True) / len(each)
        for each in (first, second)
    ]
    return (shares[0] - shares[1]).abs().amax(-1)


def picture(steps: int | None = None) -> Figure:
    """Pairs of four weights: NUTS, and the contours of two guides."""
    pyro.set_rng_seed(0)
    found = {"C0": chain(0)}
    for colour, name in (("C1", "full Normal"), ("C2", "SIVI, full")):
        found[colour] = draws(fitted(GUIDES[name](), steps or STEPS), 3000)
    axes = None
    for colour, weights in found.items():
        named = {f"w{i}": weights[None, :, i].numpy() for i in SHOWN}
        axes = az.plot_pair(
            az.from_dict(posterior=named),
            kind="kde",
            ax=axes,
            figsize=(8, 8),
            kde_kwargs={
                "fill_last": True,
                "contour_kwargs": {"colors": colour},
                "contourf_kwargs": {"alpha": 0.0},
                "hdi_probs": [0.5, 0.9],
            },
        )
    figure: Figure = np.ravel(axes)[0].figure
    figure.suptitle("NUTS blue, full Normal orange, SIVI green: 50 % and 90 % regions")
    return figure
