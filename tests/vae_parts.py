"""Parts of a VAE that several tests build it from."""

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor, nn

from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    MixedLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.guides import AmortizedNormal


def mixed() -> MixedLikelihood:
    """Six columns: two real, one count, one of three classes, two binary."""
    real, count = GaussianLikelihood(2), PoissonLikelihood(1)
    return MixedLikelihood([real, count, CategoricalLikelihood(1, 3), BernoulliLikelihood(2)])


def posteriors() -> tuple[nn.Module, Tensor]:
    """A guide of six columns and three latents, and inputs to take its posteriors at."""
    return AmortizedNormal(in_features=6, latent_features=3, hidden=(8,)), torch.rand(10, 6)


class LearnedNormal(nn.Module):
    """A prior to be trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    def forward(self) -> TorchDistribution:
        return Normal(self.loc, self.log_scale.exp()).to_event(1)
