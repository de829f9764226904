"""Options of annealing that are quick, programs to anneal, and how an estimate is judged."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.diagnostics import AIS, LogEvidence, log_evidence
from pyro_lvm.distributions.implicit import Implicit

SHORT = AIS(num_temperatures=25, num_leapfrog=4)
FROM_GUIDE = AIS(num_temperatures=25, num_leapfrog=4, initial="guide")


def ais(model: Any, *args: Any, guide: Any = None, options: AIS = SHORT, **how: Any) -> LogEvidence:
    return log_evidence(model, guide, *args, method=options, **{"num_samples": 2000, **how})


def check(estimate: LogEvidence, exact: Tensor, largest_error: float = 0.05) -> None:
    """Each datum within 4 standard errors, which are small."""
    assert estimate.value.shape == exact.shape
    assert (estimate.standard_error < largest_error).all(), estimate.standard_error
    z = (estimate.value - exact) / estimate.standard_error
    assert (z.abs() < 4).all(), z


def bimodal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.square(), 0.2), obs=x)


def bimodal_evidence(x: Tensor) -> Tensor:
    """By quadrature, of one datum ``(1,)``."""
    grid = torch.linspace(-6, 6, 20001)
    joint = dist.Normal(0.0, 1.0).log_prob(grid) + dist.Normal(grid.square(), 0.2).log_prob(x)
    return torch.trapezoid(joint.exp(), grid).log()


def implicit_guide(x: Tensor) -> None:
    """Draws of two dims and no density, off the posterior of any model here."""

    def sampler(shape: torch.Size) -> Tensor:
        return 0.3 * x[:, :2] + torch.randn(*shape, len(x), 2).sinh() * 0.7

    with pyro.plate("data", len(x)):
        pyro.sample("z", Implicit(sampler, event_dim=1))


def gamma_poisson(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def two_levels(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(top, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
