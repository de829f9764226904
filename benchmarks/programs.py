"""One VAE three ways: a Pyro model and guide, and the same arithmetic by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import log, pi

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["BY_HAND", "NETWORKS", "ByHand", "Guide", "Model", "Sizes", "data"]


@dataclass(frozen=True)
class Sizes:
    """Widths of a network and the number of data in a step."""

    in_features: int
    hidden: tuple[int, int]
    latent_features: int
    batch_size: int

    def __str__(self) -> str:
        return "-".join(map(str, (self.in_features, *self.hidden, self.latent_features)))


NETWORKS = {
    "digits": Sizes(64, (100, 100), 16, 100),
    "mnist": Sizes(784, (200, 200), 50, 128),
}


def data(sizes: Sizes, device: torch.device) -> Tensor:  # (batch, in_features)
    """Random binary images: the time of a step does not depend on what they show."""
    return torch.rand(sizes.batch_size, sizes.in_features, device=device).round()


def _mlp(*features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(features):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Model(PyroModule):
    """``z ~ Normal(0, 1)``, ``x ~ Bernoulli(decoder(z))``."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.latent_features = sizes.latent_features
        self.decoder = _mlp(sizes.latent_features, *reversed(sizes.hidden), sizes.in_features)

    def forward(self, x: Tensor) -> None:
        zero = x.new_zeros(self.latent_features)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """``z ~ Normal(loc(x), scale(x))``, both from one encoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = _mlp(sizes.in_features, *sizes.hidden, 2 * sizes.latent_features)

    def forward(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


ByHand = Callable[[nn.Module, nn.Module, Tensor, int], Tensor]
"""From (decoder, encoder, x, K) to the loss, a scalar in nats."""


def _draw(encoder: nn.Module, x: Tensor, num_particles: int) -> tuple[Tensor, Tensor, Tensor]:
    loc, log_scale = encoder(x).chunk(2, -1)
    noise = torch.randn(num_particles, *loc.shape, dtype=x.dtype, device=x.device)
    return loc, log_scale, loc + log_scale.exp() * noise


def _log_normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:  # (K, batch)
    standard = (z - loc) * (-log_scale).exp()
    return (-0.5 * standard.square() - log_scale - 0.5 * log(2 * pi)).sum(-1)


def _log_joint(decoder: nn.Module, x: Tensor, z: Tensor) -> Tensor:  # (K, batch)
    logits = decoder(z)
    image = x.expand_as(logits)
    log_likelihood = -binary_cross_entropy_with_logits(logits, image, reduction="none").sum(-1)
    return log_likelihood + (-0.5 * z.square() - 0.5 * log(2 * pi)).sum(-1)


def _log_weights(
    decoder: nn.Module, encoder: nn.Module, x: Tensor, num_particles: int
) -> Tensor:  # (K, batch)
    loc, log_scale, z = _draw(encoder, x, num_particles)
    return _log_joint(decoder, x, z) - _log_normal(z, loc, log_scale)


def _elbo(decoder: nn.Module, encoder: nn.Module, x: Tensor, num_particles: int) -> Tensor:
    return -_log_weights(decoder, encoder, x, num_particles).mean(0).sum()


def _iwae(decoder: nn.Module, encoder: nn.Module, x: Tensor, num_particles: int) -> Tensor:
    log_weights = _log_weights(decoder, encoder, x, num_particles)
    return -(torch.logsumexp(log_weights, 0) - log(num_particles)).sum()


def _elbo_stl(decoder: nn.Module, encoder: nn.Module, x: Tensor, num_particles: int) -> Tensor:
    loc, log_scale, z = _draw(encoder, x, num_particles)
    log_q = _log_normal(z, loc.detach(), log_scale.detach())
    return -(_log_joint(decoder, x, z) - log_q).mean(0).sum()


def _iwae_dreg(decoder: nn.Module, encoder: nn.Module, x: Tensor, num_particles: int) -> Tensor:
    loc, log_scale, z = _draw(encoder, x, num_particles)
    log_q = _log_normal(z, loc.detach(), log_scale.detach())
    log_weights = _log_joint(decoder, x, z) - log_q
    weights = torch.softmax(log_weights.detach(), 0).unsqueeze(-1)
    if z.requires_grad:
        z.register_hook(lambda grad: grad * weights)
    return -(torch.logsumexp(log_weights, 0) - log(num_particles)).sum()


BY_HAND: dict[tuple[str, str], ByHand] = {
    ("ELBO", "reparam"): _elbo,
    ("ELBO", "stl"): _elbo_stl,
    ("IWAE", "reparam"): _iwae,
    ("IWAE", "dreg"): _iwae_dreg,
}
