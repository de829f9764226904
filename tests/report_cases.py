"""A model with an exact posterior, guides right and wrong, and what a report says of them."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.diagnostics import Report

OF_GUIDES = ("weights", "gap", "chains", "sbc", "coverage", "tarp")
APPLY = (*OF_GUIDES, "predictive", "loo_pit", "collapse")
"""Of the default checks, to a guide with a density and latents of each datum."""


class Normals(PyroModule):
    """A guide Normal(x / 2 + shift, spread): the posterior for shift 0 and spread sqrt 1/2."""

    def __init__(self, spread: float = 0.5**0.5, shift: float = 0.0) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))
        self.shift = shift

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + self.shift, self.spread).to_event(1))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def statuses(found: Report) -> dict[str, str]:
    return {name: finding.verdict.status.value for name, finding in found.findings.items()}
