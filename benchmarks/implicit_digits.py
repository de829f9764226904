"""Do importance weights help an implicit guide: IWAVB at K = 1, 5, 50 on digits, judged by AIS.

64-100-100-16 VAEs of digits that are binarised anew for each batch, the same number of steps
for all. Im et al. claim that training and inference improve with K. Models are judged by AIS
that starts at the prior and sees the decoder alone. Guides are judged by the bound of the
Normal with the moments of their draws, which needs no density. ELBO and IWAE with a Normal
guide are there to be compared with, and to show that AIS finds what 5000 draws of a density
find.

References:
    Im, Prakhya, Yan, Turaga, Branson (2019), *Importance weighted adversarial variational
    autoencoders for spike inference from calcium imaging data*, arXiv:1906.03214.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import AIS, log_evidence, ratio_quality
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, IWAVB

__all__ = ["RUNS", "run"]

PIXELS, LATENTS, HIDDEN = 64, 16, (100, 100)
STEPS = 2000
RATE = 2e-3  # of programs with densities, where it falls to 0, and of discriminators
SLOW = 5e-4  # of programs beside a discriminator, falling to 0: at 2e-3 they run ahead of it
EVERY = 4  # of the test digits, each so-manieth is used
NUM_DRAWS = 5000
FROM_PRIOR = AIS(num_temperatures=200, num_leapfrog=5)
FROM_GUIDE = AIS(num_temperatures=50, num_leapfrog=5, initial="guide")
MOMENTS = AIS(num_temperatures=1, initial="guide")  # weighs draws of a Normal, moves none


def normal_guide() -> AmortizedNormal:
    return AmortizedNormal(in_features=PIXELS, latent_features=LATENTS, hidden=HIDDEN)


def implicit_guide() -> ImplicitGuide:
    return ImplicitGuide(
        in_features=PIXELS,
        latent_features=LATENTS,
        hidden=HIDDEN[:1],
        noise_features=LATENTS,
        noise_hidden=HIDDEN,
        context_features=HIDDEN[0],
    )


def _iwavb(num_particles: int) -> IWAVB:
    discriminator = Discriminator(LATENTS, PIXELS, hidden=(128, 128))
    return IWAVB(discriminator, num_particles, contrast="adaptive", discriminator_lr=RATE)


@dataclass(frozen=True)
class Run:
    """An objective, the guide that it trains, and the rate of both programs at first."""

    objective: Callable[[], Objective]
    guide: Callable[[], nn.Module]
    lr: float


RUNS = {
    "ELBO, K=1": Run(lambda: ELBO(1), normal_guide, RATE),
    "IWAE, K=5": Run(lambda: IWAE(5), normal_guide, RATE),
    "IWAE, K=50": Run(lambda: IWAE(50), normal_guide, RATE),
    "IWAVB, K=1": Run(partial(_iwavb, 1), implicit_guide, SLOW),
    "IWAVB, K=5": Run(partial(_iwavb, 5), implicit_guide, SLOW),
    "IWAVB, K=50": Run(partial(_iwavb, 50), implicit_guide, SLOW),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair and judge it on test digits; nats per digit."""
    pyro.set_rng_seed(seed)
    data = digits(num_validation=0)
    train = data.train.flatten(1)
    model = VAE(PIXELS, LATENTS, hidden=HIDDEN, data_mean=train.mean(0))
    chosen = RUNS[name]
    guide, objective = chosen.guide(), chosen.objective()
    fit(
        model,
        guide,
        train,
        objective,
        max_steps=steps or STEPS,
        batch_size=50,
        lr=chosen.lr,
        lr_scheduler="cosine",
        transform=data.transform,
        seed=seed,
        accelerator="cpu",
        diagnostic_particles=0,
        progress=False,
    )
    test = data.transform(data.test[::EVERY].flatten(1), torch.Generator().manual_seed(0))
    return judged(objective, model, guide, test)


def judged(objective: Objective, model: VAE, guide: nn.Module, x: Tensor) -> dict[str, float]:
    """What the model is worth, the guide, and the objective's own estimate; nats per digit."""
    pyro.set_rng_seed(0)

    def nll(method: str | AIS, num_samples: int) -> Tensor:
        return -log_evidence(model, guide, x, num_samples=num_samples, method=method).mean()

    found = {
        "NLL, AIS from the prior": nll(FROM_PRIOR, 16),
        "NLL, AIS from the guide": nll(FROM_GUIDE, 8),
    }
    if objective.ratio is None:
        found["NLL, draws of the guide"] = nll("iwae", NUM_DRAWS)
    found |= {
        "moments of the guide, 1 draw": nll(MOMENTS, 1),
        "50 draws": nll(MOMENTS, 50),
        "minus the objective": -objective.bound(model, guide, x).mean(),
    }
    if objective.ratio is not None:
        quality = ratio_quality(objective, model, guide, x, num_samples=100)
        found["T accuracy"] = quality.accuracy.mean()
        found["T calibration error"] = quality.calibration_error
    return {column: value.item() for column, value in found.items()}
