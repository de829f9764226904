"""Models of bits whose posterior enumeration gives, and guides of them."""

from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides import AmortizedBernoulli

PRIOR = torch.tensor([0.5, -1.0, 0.3, 0.0])  # log-odds of the four latents
MAX_Z = 5.5  # standard errors, of the largest of many


def corners(size: int) -> Tensor:
    """All vectors of ``size`` bits, ``(2^size, size)``."""
    return torch.tensor(list(product([0.0, 1.0], repeat=size)))


def independent_bits(x: Tensor) -> None:
    """Each latent bit has a datum of its own, so the posterior is a product."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=PRIOR.to(x)).to_event(1))
        pyro.sample("x", dist.Normal(2 * z, 1.0).to_event(1), obs=x)


def set_linear(guide: Any, weight: Tensor, bias: Tensor) -> None:
    layer = guide.encoding.head.layers[0]
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def exact_bits(draw: str) -> AmortizedBernoulli:
    guide = AmortizedBernoulli(in_features=4, latent_features=4, hidden=(), draw=draw)
    set_linear(guide, 2 * torch.eye(4), PRIOR.to(torch.float64) - 2)
    return guide


class Explaining(PyroModule):
    """Four bits that explain three numbers together: the posterior is not a product.

    Made from a seed, which what is drawn next follows from too.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.loading = nn.Parameter(1.5 * torch.randn(4, 3))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=PRIOR.to(x)).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loading, 1.0).to_event(1), obs=x)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        prior = dist.Bernoulli(logits=PRIOR.to(x)).log_prob(z).sum(-1)
        return prior + dist.Normal(z @ self.loading, 1.0).log_prob(x).sum(-1)

    def log_evidence(self, x: Tensor) -> Tensor:  # (B,)
        return self.log_joint(x, corners(4)[:, None]).logsumexp(0)
