"""High values go missing: what MIWAE makes of that, and not-MIWAE.

Three columns of one factor, x_j = l_j z + 0.5 noise with l = (1, 0.8, 1). The third is observed
with probability 1 / (1 + exp(3 x_3)); its true mean is 0. The model is factor analysis, so all
that can go wrong is the mechanism. "The same rows, complete" is what the model finds without
holes: the sampling error that remains.

References:
    Ipsen, Mattei, Frellsen (2021), *not-MIWAE: deep generative modelling with missing not at
    random data*, arXiv:2006.12871.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm import fit, impute
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import Incomplete, NotAtRandom, SelfMasking, hide
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.nn import MLP, ZeroImputing
from pyro_lvm.objectives import IWAE

__all__ = ["RUNS", "data", "run"]

ROWS, SLOPE, NOISE = 5000, -3.0, 0.5
LOADING = [[1.0], [0.8], [1.0]]
BATCH, STEPS, RATE, PARTICLES = 200, 1200, 1e-2, 10

RUNS: dict[str, Callable[[FactorAnalysis], nn.Module]] = {
    "the same rows, complete": Incomplete,
    "MIWAE": Incomplete,
    "not-MIWAE, high values": lambda m: NotAtRandom(m, SelfMasking(3, missing="high")),
    "not-MIWAE, any values": lambda m: NotAtRandom(m, SelfMasking(3)),
    "not-MIWAE, linear": lambda m: NotAtRandom(m, nn.Linear(3, 3)),
}


def data(num_rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Complete rows ``(N, 3)`` and their mask, by torch's random state."""
    truth = FactorAnalysis(3, 1)
    with torch.no_grad():
        truth.loading.copy_(torch.tensor(LOADING))
        truth.noise_scale = torch.full((3,), NOISE)
    x = truth(size=num_rows).detach()
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:, 2] = torch.rand(num_rows) < torch.sigmoid(SLOPE * x[:, 2])
    return x, observed


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """The third column as the model has it, and its missing entries as it imputes them."""
    pyro.set_rng_seed(seed)
    x, observed = data()
    incomplete = x if name == next(iter(RUNS)) else hide(x, observed)
    model = FactorAnalysis(3, 1)
    program = RUNS[name](model)
    encoder = ZeroImputing(MLP(6, None, (20,)))
    guide = AmortizedNormal(encoder, encoder_features=20, latent_features=1)
    options: Any = {"max_steps": steps or STEPS, "batch_size": BATCH, "lr": RATE}
    objective = IWAE(PARTICLES)
    fit(
        program,
        guide,
        incomplete,
        objective,
        allow_nan=True,
        lr_scheduler="cosine",
        seed=seed,
        diagnostic_particles=0,
        **options,
    )
    with torch.no_grad():
        covariance = model.loading @ model.loading.T + model.noise_scale.square().diag()
        found = {
            "mean (0)": model.mean[2].item(),
            f"deviation ({(1 + NOISE**2) ** 0.5:.3f})": covariance[2, 2].sqrt().item(),
        }
    if not incomplete.isnan().any():
        return found
    imputed = impute(program, guide, incomplete, method="mean", num_particles=500).values[0]
    error = (imputed - x)[~observed]
    return found | {
        "mean error of imputations": error.mean().item(),
        "root mean squared error": error.square().mean().sqrt().item(),
    }
