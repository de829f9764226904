"""Proposals on the plane that have a density and are wide at first: a flow, and a mixture."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.quasirandom import SobolEngine

__all__ = ["START", "EqualShares", "Flow", "Mixture"]

START = 4.0  # standard deviation at first: all targets are within it
MAX_LOG_SCALE = 2.0  # of one coupling
NORMALS, SPREAD = 32, 0.8  # of the mixture; its places' share of START
NO_SHAPE = torch.Size()


class Coupling(Transform):
    """One coordinate moved and scaled as the other says, and the two exchanged."""

    bijective = True
    domain = codomain = constraints.real_vector

    def __init__(self, net: nn.Module) -> None:
        super().__init__(cache_size=1)
        self.net = net

    def _affine(self, kept: Tensor) -> list[Tensor]:
        shift, log_scale = self.net(kept).chunk(2, -1)
        return [shift, MAX_LOG_SCALE * torch.tanh(log_scale / MAX_LOG_SCALE)]

    def _call(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, -1)
        shift, log_scale = self._affine(kept)
        return torch.cat([moved * log_scale.exp() + shift, kept], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        moved, kept = y.chunk(2, -1)
        shift, log_scale = self._affine(kept)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._affine(x[..., :1])[1].squeeze(-1)


class Flow(PyroModule):
    """Six affine couplings."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 2)) for _ in range(6)
        )
        for net in self.nets:
            nn.init.zeros_(net[-1].bias)
            nn.init.normal_(net[-1].weight, std=0.01)
        self.log_scale = nn.Parameter(torch.full((2,), START).log())

    def forward(self) -> None:
        widened = AffineTransform(0.0, self.log_scale.exp(), event_dim=1)
        layers = [*(Coupling(net) for net in self.nets), widened]
        noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        pyro.sample("z", dist.TransformedDistribution(noise, layers))


class EqualShares(dist.MixtureSameFamily):
    """A mixture whose shares are not learned: a draw has the derivative of its component's."""

    has_rsample = True

    def rsample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        which = self.mixture_distribution.sample(sample_shape)[..., None, None]
        draws = self.component_distribution.rsample(sample_shape)
        return draws.take_along_dim(which, -2).squeeze(-2)


class Mixture(PyroModule):
    """Normals of equal shares, at quasi-random places."""

    def __init__(self) -> None:
        super().__init__()
        places = dist.Normal(0.0, 1.0).icdf(SobolEngine(2, scramble=True).draw(NORMALS))
        self.loc = nn.Parameter(SPREAD * START * places)
        width = START * (1 - SPREAD**2) ** 0.5
        self.log_scale = nn.Parameter(torch.full_like(places, width).log())

    def forward(self) -> None:
        normals = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        pyro.sample("z", EqualShares(dist.Categorical(torch.ones(NORMALS)), normals))
