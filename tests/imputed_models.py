"""Models whose conditional distributions are exact, and guides that are rough, for imputations."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.diagnostics import Imputations
from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    MixedLikelihood,
    OrdinalLikelihood,
)
from pyro_lvm.models import VAE

NAN = torch.nan
X = torch.tensor([[0.5, NAN, -1.0, NAN], [NAN, 1.5, 0.3, 0.1], [NAN, NAN, NAN, NAN]])


def linear(kind: Callable[..., Any]) -> Any:
    """A model of four columns and two latents, far from its start."""
    model = kind(in_features=4, latent_features=2)
    with torch.no_grad():
        model.loading.normal_()
        model.mean.normal_()
    model.noise_scale = torch.linspace(0.4, 0.8, len(model.noise_scale))
    return model


def posterior_guide(
    model: Any, shift: float = 0.0, widening: float = 1.0
) -> Callable[[Tensor], None]:
    """The posterior given the observed entries, shifted, and its covariance times a factor."""

    def guide(x: Tensor) -> None:
        precision_of_x = torch.where(x.isnan(), 0.0, 1 / model.noise_scale.expand(4) ** 2)
        scaled = model.loading.T * precision_of_x.unsqueeze(-2)  # (B, L, D)
        precision = torch.eye(2) + scaled @ model.loading
        centred = (x - model.mean).nan_to_num(0.0)
        loc = (precision.inverse() @ scaled @ centred.unsqueeze(-1)).squeeze(-1) + shift
        with pyro.plate("data", len(x)):
            normal = dist.MultivariateNormal(loc, precision_matrix=precision / widening)
            pyro.sample("z", normal)

    return guide


def rough_guide(model: Any) -> Callable[[Tensor], None]:
    """The posterior given the observed entries, shifted and with twice its covariance."""
    return posterior_guide(model, shift=0.1, widening=2.0)


def conditional(model: Any, row: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the missing entries of ``row`` given the others."""
    covariance = model.loading @ model.loading.T + torch.diag(model.noise_scale.expand(4) ** 2)
    m, o = row.isnan(), ~row.isnan()
    gain = covariance[m][:, o] @ covariance[o][:, o].inverse()
    mean = model.mean[m] + gain @ (row - model.mean)[o]
    return mean, covariance[m][:, m] - gain @ covariance[o][:, m]


def effective(imputed: Imputations, row: int, num_samples: int) -> float:
    """Independent draws that are worth as much as resampled ones."""
    assert imputed.effective_sample_size is not None
    return float(1 / (1 / num_samples + 1 / imputed.effective_sample_size[row]))


def prior_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def mixed_model() -> VAE:
    """A real column, one of two classes, one of three, one of four ordered; one latent."""
    parts = [
        GaussianLikelihood(1),
        BernoulliLikelihood(1),
        CategoricalLikelihood(1, 3),
        OrdinalLikelihood(1, 4),
    ]
    model = VAE(4, 1, (), MixedLikelihood(parts))
    with torch.no_grad():
        model.decoder.layers[-1].weight.normal_(0.0, 2.0)
    return model


MIXED = torch.tensor([[0.7, NAN, NAN, NAN], [NAN, 1.0, NAN, 3.0], [-1.0, 0.0, 2.0, NAN]])
