"""Priors of a VAE on MNIST: N(0, I), VampPrior, and the semi-implicit ones of DSIVI.

784-300-300-40, 250 pseudo-inputs or prior draws a step, pictures binarised for each batch; all
priors get the same number of steps. They are judged on every 20th test digit by 250 draws of
the guide. Given its draws a semi-implicit prior is a mixture of posteriors too, so all five
are evaluated as mixtures of Normals: one, 250, or as many as there are prior draws, whose bound
of log p(x) is lower in the mean than the value under the prior itself.

References:
    Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
    inference*, arXiv:1810.02789, section 5.3.
    Tomczak, Welling (2018), *VAE with a VampPrior*, arXiv:1705.07120.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import log, pi

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.data import DataSplits, mnist, pseudo_inputs
from pyro_lvm.distributions import AggregatedPrior, GuidePosterior, SemiImplicitPrior, VampPrior
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import MLP
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import DSIVI, ELBO

__all__ = ["RUNS", "components", "log_mixture", "log_weights", "programs", "run"]

FEATURES, LATENTS, HIDDEN = 784, 40, (300, 300)
COUNT = 250
STEPS, BATCH, RATE, WARM_UP = 2000, 100, 1e-3, 500
PARTICLES, EVERY = 250, 20
PRIOR_DRAWS = (250, 5000)  # in evaluation
RUNS = ["N(0, I)", "VampPrior", "VampPrior-data", "DSIVI-prior", "DSIVI-agg"]


@cache
def data() -> DataSplits:
    return mnist()


def programs(name: str, train: Tensor) -> tuple[VAE, AmortizedNormal, Tensor]:
    """Model and guide, and the rows to train them on."""
    guide = AmortizedNormal(in_features=FEATURES, latent_features=LATENTS, hidden=HIDDEN)
    inputs, others = pseudo_inputs(train, COUNT)
    priors: dict[str, Callable[[], nn.Module | None]] = {
        "N(0, I)": lambda: None,
        "VampPrior": lambda: VampPrior(guide, inputs),
        "VampPrior-data": lambda: VampPrior(guide, inputs, learn=False),
        "DSIVI-prior": lambda: SemiImplicitPrior(_generator(guide, train.mean(0)), LATENTS),
        "DSIVI-agg": lambda: AggregatedPrior(guide, train),
    }
    model = VAE(FEATURES, LATENTS, HIDDEN, prior=priors[name](), data_mean=train.mean(0))
    return model, guide, others if name == "VampPrior-data" else train


def _generator(guide: nn.Module, mean: Tensor) -> nn.Module:
    """From noise to a pseudo-input, at first the mean picture, to its posterior."""
    network = MLP(LATENTS, FEATURES, HIDDEN[:1])
    with torch.no_grad():
        network.bias.copy_(mean.clamp(0.01, 0.99).logit())
    return nn.Sequential(network, nn.Sigmoid(), GuidePosterior(guide))


def objective(name: str) -> Objective:
    """With the KL warmed up."""

    def beta(step: int) -> float:
        return min(1.0, (step + 1) / WARM_UP)

    if name.startswith("DSIVI"):
        return DSIVI(num_mixing=0, num_prior_mixing=COUNT, beta=beta)
    return ELBO(beta=beta)


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Nats per test digit of one trained model."""
    pyro.set_rng_seed(seed)
    splits = data()
    model, guide, rows = programs(name, splits.train)
    fit(
        model,
        guide,
        rows,
        objective(name),
        max_steps=steps or STEPS,
        batch_size=BATCH,
        lr=RATE,
        lr_scheduler="cosine",
        transform=splits.transform,
        seed=seed,
        accelerator="cpu",
        diagnostic_particles=0,
        progress=False,
    )
    return judged(model, guide, splits.test[::EVERY])


def judged(model: VAE, guide: AmortizedNormal, x: Tensor) -> dict[str, float]:
    """Bounds of log p(x) and the ELBO, by the number of prior draws if it matters."""
    found = {}
    semi_implicit = isinstance(model.prior, SemiImplicitPrior | AggregatedPrior)
    for count in PRIOR_DRAWS if semi_implicit else (0,):
        pyro.set_rng_seed(0)  # the same draws for every model
        weights = log_weights(model, guide, x, components(model, count))
        by = f" ({count} prior draws)" if count else ""
        evidence = weights.logsumexp(0) - log(len(weights))
        found |= {f"log p(x){by}": evidence.mean().item(), f"ELBO{by}": weights.mean().item()}
    return found


@torch.no_grad()
def components(model: VAE, count: int) -> tuple[Tensor, Tensor]:
    """Means and scales ``(C, latents)`` of the Normals whose mean the prior is.

    Args:
        model: with one of the five priors.
        count: C, draws of a semi-implicit one.
    """
    if model.prior is None:
        return torch.zeros(1, LATENTS), torch.ones(1, LATENTS)
    with pyro.plate("draws", count or 1):
        prior = model.prior()
    normals = getattr(prior, "component_distribution", prior).base_dist
    return normals.loc, normals.scale


@torch.no_grad()
def log_weights(
    model: VAE, guide: AmortizedNormal, x: Tensor, normals: tuple[Tensor, Tensor]
) -> Tensor:
    """Of ``PARTICLES`` draws for each row of ``x``, ``(K, B)`` nats."""
    q = guide.posterior(x)["z"]
    found = []
    for _ in range(0, PARTICLES, 10):  # ten at a time
        z = q.sample((10,))
        log_p = model.decode(z).log_prob(x) + log_mixture(z, *normals)
        found.append(log_p - q.log_prob(z))
    return torch.cat(found)


def log_mixture(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log-density of ``z`` ``(*, D)`` under the mean of Normals ``(C, D)``, as one product."""
    precision = scale.double() ** -2
    constant = -0.5 * (loc**2 * precision).sum(-1) - scale.double().log().sum(-1)
    factors = torch.cat([-0.5 * precision, loc * precision], -1)  # (C, 2 D)
    terms = torch.cat([z**2, z], -1).double() @ factors.T + constant
    return terms.logsumexp(-1) - log(len(loc)) - 0.5 * z.shape[-1] * log(2 * pi)
