"""Predictive uncertainty of a Bayesian network of one covariate, by ELBO and by NUTS.

Run as ``python -m benchmarks.bayesian_picture``.
"""

from __future__ import annotations

from pathlib import Path

import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from benchmarks.suite import RESULTS
from benchmarks.training import train
from pyro_lvm import sample_posterior
from pyro_lvm.diagnostics import plot_predictive_bands, predictive_bands
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import BayesianMLP
from pyro_lvm.objectives import ELBO

__all__ = ["save"]

HIDDEN, STEPS, DRAWS, SEED = (20,), 1500, 300, 0
PRIOR_SCALE, NOISE = 1.5, 0.15


def save(folder: Path, steps: int = STEPS, num_draws: int = DRAWS) -> None:
    """One picture each, of the same 40 data with a gap between them."""
    pyro.set_rng_seed(SEED)
    data = gapped()
    model = BayesianMLP(1, HIDDEN, prior_scale=PRIOR_SCALE)
    guide = NormalWeights(model.starts())
    train(ELBO(10)(model, guide), guide.parameters(), lambda: data, steps, 1e-2)
    by_elbo = sample_posterior(model, guide, *data, num_samples=num_draws)
    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True, max_tree_depth=6)
    sampler = MCMC(kernel, num_draws, warmup_steps=num_draws // 2, disable_progbar=True)
    sampler.run(*data)
    x = torch.linspace(-2.5, 2.5, 200)
    for name, draws in {"elbo": by_elbo, "nuts": sampler.get_samples()}.items():
        bands = predictive_bands(model.outcome(x[:, None], draws))
        figure = plot_predictive_bands(x, bands, (data[0][:, 0], data[1]))
        figure.axes[0].set_ylim(-3.0, 3.0)
        figure.savefig(folder / f"bayesian_nets_{name}.png", dpi=80)


def gapped() -> tuple[Tensor, Tensor]:
    """Covariates ``(40, 1)`` and outcomes ``(40,)``."""
    x = torch.cat([-1.8 + torch.rand(20), 0.8 + torch.rand(20)])
    return x[:, None], (2 * x).sin() + NOISE * torch.randn(40)


if __name__ == "__main__":
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    save(RESULTS)
