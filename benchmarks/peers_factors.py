r"""A factor model whose loadings have a posterior too: two plates side by side.

.. math:: w_d \sim N(0, I), \quad z_n \sim N(0, I), \quad x_{nd} \sim N(w_d^\top z_n, s_d^2)

The guide is a Normal for each unknown; the noise is a parameter.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from benchmarks import peers_numpyro
from benchmarks.peers_case import Case
from benchmarks.peers_normals import Normals, log_normal

__all__ = ["factors"]

ROWS, COLUMNS, FACTORS = 500, 20, 5


def factors() -> Case:
    model, guide = Model(), Guide()
    parameters = nn.ModuleDict({"model": model, "guide": guide})
    x = torch.randn(ROWS, COLUMNS)
    return Case(
        title=f"factor model, {ROWS} rows, {COLUMNS} columns, {FACTORS} factors",
        model=model,
        guide=guide,
        x=x,
        modules=parameters,
        bound="ELBO",
        by_hand=lambda num_particles: by_hand(guide.normals, model.log_noise, x, num_particles),
        peers=peers_numpyro.steps("factors", parameters, x, "ELBO"),
    )


class Model(PyroModule):
    """Loadings in plate "columns", scores and data in plate "rows"."""

    def __init__(self) -> None:
        super().__init__()
        self.log_noise = nn.Parameter(torch.zeros(COLUMNS))

    def forward(self, x: Tensor) -> None:
        normal = dist.Normal(x.new_zeros(FACTORS), 1.0).to_event(1)
        with pyro.plate("columns", x.shape[1]):
            loading = pyro.sample("loading", normal)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", normal)
            noise = dist.Normal(z @ loading.mT, self.log_noise.exp())
            pyro.sample("x", noise.to_event(1), obs=x)


class Guide(PyroModule):
    """A Normal for each loading and score."""

    def __init__(self) -> None:
        super().__init__()
        self.normals = Normals(loading=(COLUMNS, FACTORS), z=(ROWS, FACTORS))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("columns", x.shape[1]):
            pyro.sample("loading", self.normals.of("loading").to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.normals.of("z").to_event(1))


def by_hand(normals: Normals, log_noise: Tensor, x: Tensor, num_particles: int) -> Tensor:
    """Minus the evidence lower bound of K draws."""
    loading, log_q_loading = normals.draws("loading", num_particles)  # (K, columns, factors)
    z, log_q_z = normals.draws("z", num_particles)  # (K, rows, factors)
    log_likelihood = log_normal(x, z @ loading.mT, log_noise).sum()
    log_joint = log_likelihood + log_normal(loading).sum() + log_normal(z).sum()
    return (log_q_loading + log_q_z - log_joint) / num_particles
