"""Proposals on the plane that have a density and are wide at first: a flow, and a mixture."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from pyro_lvm.guides import MixtureWeights

__all__ = ["START", "Flow", "Mixture"]

START = 4.0  # standard deviation at first: all targets are within it
MAX_LOG_SCALE = 2.0  # of one coupling


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


Mixture = partial(MixtureWeights, {"z": torch.zeros(2)}, start_scale=START)
"""32 Normals of equal shares, at quasi-random places."""
