"""Models with a known evidence, each with guides of a known fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.oracles import LinearGaussian

__all__ = ["MODELS", "Case"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """Data that a model made, the latents that made them, and what is known of both.

    Attributes:
        model: the generative program.
        guides: by name.
        x: data ``(N, features)``.
        z: latents ``(N, latents)``.
        exact: ``(N,)`` log p(x), nats.
    """

    model: Program
    guides: dict[str, Program]
    x: Tensor
    z: Tensor
    exact: Tensor


def linear_gaussian(num_data: int, features: int, latents: int) -> Case:
    """A factor model; guides are independent Normals, of 1.2 and 0.5 times the marginal sd."""
    scaled = torch.randn(features, latents) / latents**0.5
    oracle = LinearGaussian(scaled, 0.5 + torch.rand(features))
    z = torch.randn(num_data, latents)
    x = z @ oracle.loading.T + oracle.noise * torch.randn(num_data, features)

    def guide_of(factor: float) -> Program:
        def guide(x: Tensor) -> None:
            q = oracle.posterior(x)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(q.loc, factor * q.stddev).to_event(1))

        return guide

    guides = {"wide guide": guide_of(1.2), "narrow guide": guide_of(0.5)}
    return Case(oracle.model, guides, x, z, oracle.log_evidence(x))


def mixture(num_data: int) -> Case:
    """Two modes of a latent in the plane, which data in one dim do not always tell apart."""
    centres, spread, noise = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), 0.5, 1.5
    half = torch.full((2,), 0.5)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(half), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(centres[c], spread).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), noise).to_event(1), obs=x)

    def guide_of(loc: Tensor, scale: float) -> Program:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc.expand(len(x), 2), scale).to_event(1))

        return guide

    c = torch.randint(2, (num_data,))
    z = centres[c] + spread * torch.randn(num_data, 2)
    x = z.sum(-1, keepdim=True) + noise * torch.randn(num_data, 1)
    parts = dist.Normal(centres.sum(-1), (noise**2 + 2 * spread**2) ** 0.5)
    exact = parts.log_prob(x).logsumexp(-1) - torch.tensor(2.0).log()
    guides = {
        "wide guide": guide_of(torch.zeros(2), 2.2),
        "guide of one mode": guide_of(centres[0], spread),
    }
    return Case(model, guides, x, z, exact)


MODELS: dict[str, Callable[[int], Case]] = {
    "linear-Gaussian, 2 latents": lambda n: linear_gaussian(n, 4, 2),
    "linear-Gaussian, 20 latents": lambda n: linear_gaussian(n, 30, 20),
    "mixture, 2 latents": mixture,
}
