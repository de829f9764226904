"""Models whose posterior is known, with guides that are right, or wrong by a stated amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.objectives import ELBO
from pyro_lvm.oracles import LinearGaussian

__all__ = ["EXACT", "FAULTS", "Planted"]

Program = Callable[..., Any]

NUM_DATA = 100


@dataclass(frozen=True)
class Planted:
    """A model, its data, and a guide.

    Attributes:
        model: called as ``model(x)``.
        data: draws data from the model.
        guide: makes the guide.
        told: what it is, for the table.
    """

    model: Program
    data: Callable[[], Tensor]
    guide: Callable[[], Program]
    told: str


LOADING = torch.tensor([[1.5, 1.5], [1.5, 1.5], [1.0, 1.0], [0.5, -0.5]])
LINEAR = LinearGaussian(LOADING, torch.ones(4))  # the two latents correlate by -0.78 given x


def _linear_data() -> Tensor:
    return torch.randn(NUM_DATA, 2) @ LOADING.T + torch.randn(NUM_DATA, 4)


def _linear(told: str, made: Callable[[dist.MultivariateNormal], Any]) -> Planted:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", made(LINEAR.posterior(x)))

    return Planted(LINEAR.model, _linear_data, lambda: guide, told)


def _scaled(width: float) -> Callable[[dist.MultivariateNormal], Any]:
    return lambda p: dist.MultivariateNormal(p.loc, scale_tril=width * p.scale_tril)


def _shifted(p: dist.MultivariateNormal) -> Any:
    shift = 0.5 * p.variance.sqrt() * torch.tensor([1.0, 0.0])
    return dist.MultivariateNormal(p.loc + shift, scale_tril=p.scale_tril)


def _mean_field(p: dist.MultivariateNormal) -> Any:
    precision = p.precision_matrix.diagonal(dim1=-2, dim2=-1)
    return dist.Normal(p.loc, precision.rsqrt()).to_event(1)


def _margins(p: dist.MultivariateNormal) -> Any:
    return dist.Normal(p.loc, p.variance.sqrt()).to_event(1)


def _prior(p: dist.MultivariateNormal) -> Any:
    return dist.Normal(torch.zeros_like(p.loc), 1.0).to_event(1)


def _undertrained() -> Program:
    """Of the right family: 100 steps of Adam from the start."""
    guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(32,), covariance="full")
    loss = ELBO(5)(LINEAR.model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss(_linear_data()).backward()
        optimizer.step()
    return guide.eval()


MODES, MODE_SCALE, NOISE = torch.tensor([-3.0, 3.0]), 0.5, 3.0


def _two_modes(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        modes = dist.Normal(MODES, MODE_SCALE)
        prior = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), modes)
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z, NOISE), obs=x)


def _two_modes_data() -> Tensor:
    z = MODES[torch.randint(2, (NUM_DATA,))] + MODE_SCALE * torch.randn(NUM_DATA)
    return z + NOISE * torch.randn(NUM_DATA)


def _modes(x: Tensor) -> tuple[Tensor, dist.Normal]:
    """Log-weights ``(B, 2)`` and components of the posterior."""
    precision = MODE_SCALE**-2 + NOISE**-2
    loc = (MODES * MODE_SCALE**-2 + x[:, None] * NOISE**-2) / precision
    evidence = dist.Normal(MODES, (MODE_SCALE**2 + NOISE**2) ** 0.5)
    return evidence.log_prob(x[:, None]), dist.Normal(loc, precision**-0.5)


def _both_modes(x: Tensor) -> None:
    logits, components = _modes(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), components))


def _likelier_mode(x: Tensor) -> None:
    logits, components = _modes(x)
    loc = components.loc.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, components.scale[0, 0]))


NUM_SHARED = 20


def _shared(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def _weighed(scale: float) -> Program:
    """The posterior of a likelihood that counts each datum ``scale`` times."""

    def guide(x: Tensor) -> None:
        precision = torch.tensor(1 + scale * len(x))
        pyro.sample("mean", dist.Normal(scale * x.sum() / precision, precision**-0.5))

    return guide


def _of_shared(told: str, scale: float) -> Planted:
    def data() -> Tensor:
        return torch.randn(()) + torch.randn(NUM_SHARED)

    return Planted(_shared, data, lambda: _weighed(scale), told)


EXACT: Mapping[str, Planted] = {
    "linear": _linear("linear-Gaussian, a latent a datum", lambda p: p),
    "modes": Planted(_two_modes, _two_modes_data, lambda: _both_modes, "two modes a datum"),
    "shared": _of_shared("one latent of 20 data", 1.0),
}
"""Guides that are the posterior."""

FAULTS: Mapping[str, Planted] = {
    "narrow": _linear("too narrow: scales x 0.7", _scaled(0.7)),
    "wide": _linear("too wide: scales x 1.4", _scaled(1.4)),
    "biased": _linear("biased: a latent shifted by half its scale", _shifted),
    "mode": Planted(
        _two_modes, _two_modes_data, lambda: _likelier_mode, "one of two modes missing"
    ),
    "mean-field": _linear("mean-field, as the ELBO has it; correlation -0.78", _mean_field),
    "margins": _linear("mean-field with the right margins", _margins),
    "undertrained": Planted(
        LINEAR.model, _linear_data, _undertrained, "encoder of 100 steps of training"
    ),
    "scale": _of_shared("subsample scale wrong: half the data count", 0.5),
    "collapsed": _linear("collapsed: the guide is the prior", _prior),
}
"""Guides that are not."""
