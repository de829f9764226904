"""Does an auxiliary variable help: a posterior with two modes, judged by quadrature.

z ~ N(0, 1) and x | z ~ N(z^2, 0.25), a fixed model. Amortised guides are trained on fresh data
and judged by their gap, the mean of log p(x) - ELBO over 2000 other data: a Normal, and an
auxiliary Normal whose reverse model is trained with it. log p(x) is that of 4000 points.

References:
    Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
    arXiv:1602.05473.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal, AuxiliaryNormal
from pyro_lvm.nn import ConditionalNormal, data_plate, joined
from pyro_lvm.objectives import ELBO

__all__ = ["RUNS", "exact_evidence", "run"]

SCALE = 0.5  # of x given z
HIDDEN = (64, 64)
STEPS, BATCH, RATE = 2000, 256, 3e-3
NUM_TEST, DRAWS = 2000, 100
GRID = torch.linspace(-8.0, 8.0, 4001)


class Squared(PyroModule):
    """Data ``(B, 1)`` that are squares of latents and noise; perhaps an auxiliary after them."""

    def __init__(self, *, has_auxiliary: bool) -> None:
        super().__init__()
        self.auxiliary = ConditionalNormal(2, 1, HIDDEN) if has_auxiliary else None

    def forward(self, x: Tensor) -> None:
        with data_plate(len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.square(), SCALE).to_event(1), obs=x)
            if self.auxiliary is not None:
                pyro.sample("a", self.auxiliary(joined([x, z])))


def normal_guide() -> nn.Module:
    return AmortizedNormal(in_features=1, latent_features=1, hidden=HIDDEN)


def auxiliary_guide() -> nn.Module:
    """The same width throughout: data to features, and these to "a" and to "z"."""
    return AuxiliaryNormal(
        in_features=1,
        latent_features=1,
        auxiliary_features=1,
        hidden=HIDDEN[:1],
        context_features=HIDDEN[0],
        conditional_hidden=HIDDEN[1:],
    )


RUNS: dict[str, Callable[[], nn.Module]] = {
    "Normal": normal_guide,
    "auxiliary Normal": auxiliary_guide,
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """The gap of one trained guide, and of 200 importance-weighted draws; nats per datum."""
    pyro.set_rng_seed(seed)
    model, guide = Squared(has_auxiliary=name != "Normal"), RUNS[name]()
    module = ELBO()(model, guide)
    train(module, module.parameters(), lambda: (draw(BATCH),), steps or STEPS, RATE, per=BATCH)
    x = draw(NUM_TEST)
    evidence = exact_evidence(x)
    elbo = ELBO(DRAWS).bound(model, guide, x)
    weighted = log_evidence(model, guide, x, num_samples=200).value
    return {
        "gap of the ELBO": (evidence - elbo).mean().item(),
        "gap of 200 draws": (evidence - weighted).mean().item(),
        "log p(x)": evidence.mean().item(),
    }


def draw(size: int) -> Tensor:  # (size, 1)
    return torch.randn(size, 1).square() + SCALE * torch.randn(size, 1)


def exact_evidence(x: Tensor) -> Tensor:  # (B,)
    """log p(x) by the trapezoidal rule, whose error is far below 1e-6 nats here."""
    log_joint = dist.Normal(0.0, 1.0).log_prob(GRID) + dist.Normal(GRID**2, SCALE).log_prob(x)
    return log_joint.logsumexp(-1) + (GRID[1] - GRID[0]).log()
