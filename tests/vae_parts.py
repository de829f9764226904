"""Parts of a VAE that several tests build it from."""

from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    MixedLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE


def mixed() -> MixedLikelihood:
    """Six columns: two real, one count, one of three classes, two binary."""
    real, count = GaussianLikelihood(2), PoissonLikelihood(1)
    return MixedLikelihood([real, count, CategoricalLikelihood(1, 3), BernoulliLikelihood(2)])


def posteriors() -> tuple[nn.Module, Tensor]:
    """A guide of six columns and three latents, and inputs to take its posteriors at."""
    return AmortizedNormal(in_features=6, latent_features=3, hidden=(8,)), torch.rand(10, 6)


class GivenHalf(PyroModule):
    """A conditional model as one of rows, of which every second entry is given."""

    def __init__(self, model: PyroModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any = None, *, size: int = 1) -> Tensor:
        observed = None
        if x is not None:
            observed = torch.zeros(np.shape(x), dtype=torch.bool)
            observed[..., ::2] = True
        drawn: Tensor = self.model(x, observed, size=size)
        return drawn


class LearnedNormal(nn.Module):
    """A prior to be trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    def forward(self) -> TorchDistribution:
        return Normal(self.loc, self.log_scale.exp()).to_event(1)


def programs(likelihood: Any, **settings: Any) -> tuple[VAE, AmortizedNormal]:
    """A model of six columns and two latents, and its guide."""
    model = VAE(6, 2, (16,), likelihood, **settings)
    return model, AmortizedNormal(in_features=6, latent_features=2, hidden=(16,))


def trained(
    model: VAE, guide: AmortizedNormal, x: Tensor, steps: int = 150
) -> tuple[Tensor, Tensor]:
    """Bounds of the data, nats each, before and after training."""
    objective = IWAE(5)
    with pyro.settings.context(module_local_params=True):
        loss = objective(model, guide)
        before = objective.bound(model, guide, x)
        adam = torch.optim.Adam(loss.parameters(), 0.02)
        for _ in range(steps):
            adam.zero_grad()
            loss(x).backward()
            adam.step()
        return before, objective.bound(model, guide, x)
