"""Are latents found: iVAE and VAE on sources whose variances change by segment, by correlation.

The generator of the iVAE paper, linear with 3 sources and with three layers of 2. Decoders have
noise of variance 0.01, as the data have none. MCC is that of posterior means, with the data's
own beside it.

References:
    Khemakhem, Kingma, Monti, Hyvärinen (2020), *Variational autoencoders and nonlinear ICA: a
    unifying framework*, arXiv:1907.04809.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch

from pyro_lvm import fit
from pyro_lvm.diagnostics import mean_correlation, sample_posterior
from pyro_lvm.distributions import GaussianLikelihood
from pyro_lvm.guides import AmortizedNormal, StructuredGuide
from pyro_lvm.models import VAE, IdentifiableVAE
from pyro_lvm.models.segment_sources import SegmentSources, simulate
from pyro_lvm.objectives import ELBO

__all__ = ["RUNS", "run"]

HIDDEN = (100, 100)
NOISE = 0.1
BATCH = 256


@dataclass(frozen=True)
class Run:
    """Data, model and schedule.

    Attributes:
        knows_segment: whether it is an iVAE.
        features: number of sources.
        segment_length: data of each of 40 segments.
        num_layers: of the mixing.
        epochs: passes over the data.
        lr: rate at first; it falls to 0.
        covariance: of the guide's Normal.
    """

    knows_segment: bool
    features: int
    segment_length: int
    num_layers: int
    epochs: int
    lr: float
    covariance: str = "diagonal"


RUNS = {
    "linear, 3 sources, iVAE": Run(True, 3, 250, 1, 200, 1e-2),
    "linear, 3 sources, VAE": Run(False, 3, 250, 1, 200, 1e-2),
    "linear, 3 sources, iVAE, full covariance": Run(True, 3, 250, 1, 60, 1e-2, "full"),
    "linear, 3 sources, VAE, full covariance": Run(False, 3, 250, 1, 60, 1e-2, "full"),
    "nonlinear, 2 sources, iVAE": Run(True, 2, 500, 3, 60, 3e-3),
    "nonlinear, 2 sources, VAE": Run(False, 2, 500, 3, 60, 3e-3),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair on the sources of this seed; MCC of its latents and of the data."""
    pyro.set_rng_seed(seed)
    chosen = RUNS[name]
    sources = simulate(
        chosen.features,
        segment_length=chosen.segment_length,
        num_layers=chosen.num_layers,
        seed=seed,
    )
    data = (sources.x, sources.u) if chosen.knows_segment else (sources.x,)
    model, guide = _programs(sources, chosen)
    fit(
        model,
        guide,
        data,
        ELBO(),
        max_epochs=None if steps else chosen.epochs,
        max_steps=steps,
        batch_size=BATCH,
        lr=chosen.lr,
        lr_scheduler="cosine",
        seed=seed,
        accelerator="cpu",
        evaluate_every=10**9,
        diagnostic_particles=0,
        progress=False,
    )
    means = sample_posterior(model, guide, *data, num_samples=50)["z"].mean(0)
    return {
        "MCC": mean_correlation(means, sources.z).item(),
        "MCC of the data": mean_correlation(sources.x, sources.z).item(),
        "-ELBO": -ELBO(20).bound(model, guide, *data).mean().item(),
    }


def _programs(sources: SegmentSources, chosen: Run) -> tuple[Any, Any]:
    size, segments = chosen.features, sources.u.shape[1]
    likelihood = GaussianLikelihood(size)
    likelihood.noise_scale = torch.full((size,), NOISE)
    likelihood.requires_grad_(False)
    if chosen.knows_segment:
        model = IdentifiableVAE(size, segments, size, HIDDEN, likelihood)
        guide = StructuredGuide(
            in_features=size + segments,
            latent_features=size,
            hidden=HIDDEN[:1],
            conditional=chosen.covariance,
            context_features=HIDDEN[0],
            conditional_hidden=HIDDEN[1:],
        )
        return model, guide
    guide = AmortizedNormal(
        in_features=size,
        latent_features=size,
        hidden=HIDDEN,
        covariance=chosen.covariance,
    )
    return VAE(size, size, HIDDEN, likelihood), guide
