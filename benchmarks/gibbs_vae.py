"""A VAE of digits with half of the pixels missing: VGI beside the ELBO and MIWAE of the rest.

All train one decoder, Bernoulli pixels that are drawn once from their grey values, on the same
holes and with as many steps. Models are judged on complete held-out digits: each decoder gets a
new encoder, trained on complete digits while the decoder is held, and log p(x) is estimated by
importance sampling with it.

References:
    Simkus, Rhodes, Gutmann (2023), arXiv:2111.13180, for the new encoder.
    Mattei, Frellsen (2019), arXiv:1812.02633, for MIWAE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Incomplete, hide, mcar
from pyro_lvm.models import VAE
from pyro_lvm.nn import MLP, ZeroImputing
from pyro_lvm.objectives import ELBO, IWAE, VGI

__all__ = ["RUNS", "run"]

PIXELS, LATENT, HIDDEN = 64, 10, (100,)
BATCH, RATE, STEPS, WARMUP = 128, 2e-3, 1500, 100
JUDGE_STEPS, DRAWS = 600, 1000


class Programs(NamedTuple):
    """What one contender trains.

    Attributes:
        loss: a module of rows, and for VGI their numbers.
        guide: its parameters are trained beside the model's.
    """

    loss: nn.Module
    guide: nn.Module


def complete(model: VAE, x: Tensor) -> Programs:
    guide = AmortizedNormal(in_features=PIXELS, latent_features=LATENT, hidden=HIDDEN)
    return Programs(_OfRows(IWAE(5, "dreg")(model, guide)), guide)


def zero_imputed(model: VAE, x: Tensor) -> Programs:
    return _of_observed(ELBO(), model)


def miwae(model: VAE, x: Tensor) -> Programs:
    return _of_observed(IWAE(20, "dreg"), model)


def vgi(model: VAE, x: Tensor) -> Programs:
    conditionals = GibbsConditionals(PIXELS, num_classes=(2,) * PIXELS, hidden=(100,))
    posterior = AmortizedNormal(in_features=PIXELS, latent_features=LATENT, hidden=HIDDEN)
    guide = GibbsGuide(conditionals, posterior)
    objective = VGI(Chains(x), inner=IWAE(5, "dreg"), num_updates=5, warmup=WARMUP)
    return Programs(objective(model, guide), guide)


RUNS: dict[str, Callable[[VAE, Tensor], Programs]] = {
    "IWAE, nothing missing": complete,
    "ELBO of the observed, zeros imputed": zero_imputed,
    "MIWAE, K = 20": miwae,
    "VGI, IWAE of 5 inside": vgi,
}


def run(name: str, seed: int, epochs: int | None = None) -> dict[str, float]:
    """Test NLL, nats a digit, by ``DRAWS`` importance draws; and the gap of the new encoder."""
    pyro.set_rng_seed(seed)
    data = digits("fixed", num_validation=100)
    rows = data.train
    x = rows if name.endswith("nothing missing") else hide(rows, mcar(rows, 0.5, seed=seed + 1))
    model = VAE(PIXELS, LATENT, HIDDEN, data_mean=x.nanmean(0))
    programs = RUNS[name](model, x)
    steps = STEPS if epochs is None else epochs * -(-len(x) // BATCH)
    parameters = [*model.parameters(), *programs.guide.parameters()]
    train(programs.loss, parameters, _batches(x), steps, RATE, per=_data(name, x))
    return _judged(model, rows, data.test, min(JUDGE_STEPS, steps))


def _judged(model: VAE, rows: Tensor, test: Tensor, steps: int) -> dict[str, float]:
    """By a new encoder, of complete training rows; the model stays as it is."""
    model.requires_grad_(False)
    guide = AmortizedNormal(in_features=PIXELS, latent_features=LATENT, hidden=HIDDEN)
    loss = _OfRows(IWAE(5, "dreg")(model, guide))
    train(loss, guide.parameters(), _batches(rows), steps, RATE, per=BATCH)
    found = log_evidence(model, guide, test, num_samples=DRAWS)
    elbo = ELBO(50).bound(model, guide, test).mean().item()
    nll = -found.value.mean().item()
    return {"test NLL": nll, "-ELBO": -elbo}


def _of_observed(objective: Any, model: VAE) -> Programs:
    encoder = ZeroImputing(MLP(2 * PIXELS, None, HIDDEN))
    guide = AmortizedNormal(encoder, encoder_features=encoder.out_features, latent_features=LATENT)
    return Programs(_OfRows(objective(Incomplete(model), guide)), guide)


class _OfRows(nn.Module):
    """A loss that needs no row numbers."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor, index: Tensor) -> Any:
        return self.loss(x)


def _batches(x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def batch() -> tuple[Tensor, Tensor]:
        index = torch.randint(len(x), (BATCH,))
        return x[index], index

    return batch


def _data(name: str, x: Tensor) -> int:
    return len(x) if name.startswith("VGI") else BATCH
