"""In-painting of digits half of which is missing: VAEAC beside a VAE trained by MIWAE.

Pixels of the 8 x 8 digits are drawn anew for each batch of training, from their grey values,
and once for the test. VAEAC sees the whole picture and is asked for what a random mask hides;
the VAE sees what the mask leaves, every second picture whole. Both are judged by
log p(missing half | other half) of test digits by importance sampling, for the VAE the
difference of two evidences, by the share of wrong pixels, and by how much two draws differ.

References:
    Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
    arXiv:1806.02382.
    Mattei, Frellsen (2019), *MIWAE*, arXiv:1812.02633.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_lvm import fit, impute
from pyro_lvm.data import Binarize, load
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal, ConditioningGuide
from pyro_lvm.missing import Incomplete, RandomMasks, arbitrary, half, hide
from pyro_lvm.models import VAE, VAEAC
from pyro_lvm.nn import ConvEncoder, UNet, ZeroImputing
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["RUNS", "picture", "run"]

WIDTH, LATENT, CHANNELS = 8, 16, (16, 32)
PIXELS = WIDTH**2
BATCH, STEPS, RATE = 64, 2500, 1e-3
TEST, DRAWS = 100, 1000
MASKS = RandomMasks(arbitrary, shape=(WIDTH, WIDTH))
BINARIZE = Binarize()


class ByVAEAC:
    """Conditional model of dense networks."""

    objective: Objective = IWAE(5, gradient="dreg")

    def __init__(self) -> None:
        sizes: dict[str, Any] = {"latent_features": LATENT, "width": 200}
        self.model = VAEAC(PIXELS, likelihood="bernoulli", **sizes)
        self.guide = ConditioningGuide(in_features=PIXELS, **sizes)

    def batch(self, grey: Tensor, generator: torch.Generator) -> Any:
        return MASKS(BINARIZE(grey, generator), generator)

    def log_conditional(self, x: Tensor, observed: Tensor) -> Tensor:
        return log_evidence(self.model, self.guide, x, observed, num_samples=DRAWS).value

    def imputations(self, x: Tensor, **options: Any) -> Tensor:
        return impute(self.model, self.model.prior_guide, x, **options).values


class ByUNet(ByVAEAC):
    """Conditional model of convolutions, with skips at both scales."""

    objective = ELBO()

    def __init__(self) -> None:
        networks = UNet(WIDTH, 2, CHANNELS), UNet(WIDTH, 3, CHANNELS)
        self.model = VAEAC(PIXELS, LATENT, "bernoulli", encoder=networks[0])
        self.guide = ConditioningGuide(
            networks[1],
            in_features=PIXELS,
            latent_features=LATENT,
            encoder_features=networks[1].out_features,
        )


class ByVAE:
    """VAE of whole pictures, whose guide reads what is there."""

    objective = IWAE(5, gradient="dreg")

    def __init__(self) -> None:
        encoder = ZeroImputing(ConvEncoder(WIDTH, 2, CHANNELS))
        self.model = Incomplete(VAE(PIXELS, LATENT, (200, 200)))
        self.guide = AmortizedNormal(
            encoder, latent_features=LATENT, encoder_features=encoder.out_features
        )

    def batch(self, grey: Tensor, generator: torch.Generator) -> Any:
        x, observed = MASKS(BINARIZE(grey, generator), generator)
        observed[::2] = True
        return hide(x, observed)

    def log_conditional(self, x: Tensor, observed: Tensor) -> Tensor:
        whole, part = (
            log_evidence(self.model, self.guide, data, num_samples=DRAWS).value
            for data in (x, hide(x, observed))
        )
        return whole - part

    def imputations(self, x: Tensor, **options: Any) -> Tensor:
        return impute(self.model, self.guide, x, **options).values


RUNS: dict[str, Callable[[], Any]] = {
    "VAEAC, dense, IWAE 5 dreg": ByVAEAC,
    "VAEAC, U-Net, ELBO": ByUNet,
    "VAE, MIWAE": ByVAE,
}


@cache
def test_digits() -> tuple[Tensor, Tensor]:
    """Black and white test digits, and masks that hide a half of each."""
    x = BINARIZE(load("digits").test[:TEST], torch.Generator().manual_seed(0))
    return x, half(x.unflatten(1, (WIDTH, WIDTH))).flatten(1)


def trained(name: str, seed: int, steps: int) -> Any:
    pyro.set_rng_seed(seed)
    pair = RUNS[name]()
    digits = load("digits")
    fit(
        pair.model,
        pair.guide,
        digits.train,
        pair.objective,
        validation=digits.validation,
        evaluate_every=200,
        restore_best=True,
        transform=pair.batch,
        max_steps=steps,
        batch_size=BATCH,
        lr=RATE,
        lr_scheduler="cosine",
        seed=seed,
        diagnostic_particles=0,
    )
    return pair


@torch.no_grad()
def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """On test digits: nats a digit, and shares of missing pixels."""
    with torch.enable_grad():
        pair = trained(name, seed, steps or STEPS)
    x, observed = test_digits()
    missing, incomplete = ~observed, hide(x, observed)
    draws = pair.imputations(incomplete, num_samples=20)
    guess = pair.imputations(incomplete, method="mean")[0]
    wrong = (draws != x)[:, missing].float().mean()
    return {
        "log p(missing given observed)": pair.log_conditional(x, observed).mean().item(),
        "wrong pixels, best guess": (guess != x)[missing].float().mean().item(),
        "wrong pixels, one draw": wrong.item(),
        "pixels that differ between two draws": _differing(draws[:, missing]).item(),
    }


def _differing(draws: Tensor) -> Tensor:
    """Chance that two of M draws ``(M, N)`` of zeros and ones differ."""
    ones, count = draws.sum(0), len(draws)
    return (2 * ones * (count - ones) / (count * (count - 1))).mean()


@torch.no_grad()
def picture(steps: int | None = None) -> Figure:
    """Digits, what is left of them, and draws of each model."""
    x, observed = (data[:10] for data in test_digits())
    left = torch.where(observed, x, 0.5)
    rows = [x, left]
    for name in RUNS:
        with torch.enable_grad():
            pair = trained(name, 0, steps or STEPS)
        rows += list(pair.imputations(hide(x, observed), num_samples=4))
    titles = ["digit", "observed", *(f"{name} {n}" for name in RUNS for n in range(1, 5))]
    figure = Figure(figsize=(8.0, 10.5), layout="constrained")
    axes = figure.subplots(len(rows), len(x))
    for line, row, title in zip(axes, rows, titles, strict=True):
        for axis, digit in zip(line, row, strict=True):
            axis.imshow(1 - digit.reshape(WIDTH, WIDTH), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    return figure
