"""A Normal latent of each datum, in a model and a guide, and their weights by hand."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.objectives import IWAE

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor) -> None:
    shift = pyro.param("shift", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2 + shift, 0.9))


def log_evidence(x: Tensor) -> Tensor:
    return dist.Normal(torch.zeros(()), 2**0.5).log_prob(x)


def weights_by_hand(z: Tensor, x: Tensor, kl_factor: Any = 1.0) -> Tensor:
    """Log-weights of given draws under the two programs above."""
    ratio = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(x / 2 + 0.2, 0.9).log_prob(z)
    return dist.Normal(z, 1.0).log_prob(x) + kl_factor * ratio


def drawn(model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Four draws of z and their log-weights."""
    particles = IWAE(4).particles(model, guide, *args, **kwargs)
    return particles.values["z"], particles.log_weights
