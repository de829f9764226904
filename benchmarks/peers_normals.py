"""Normal densities and draws by hand, and the parameters of a guide of independent Normals."""

from __future__ import annotations

from math import log, pi

import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["Normals", "draw", "log_normal"]

_HALF_LOG_2PI = 0.5 * log(2 * pi)


def log_normal(z: Tensor, loc: Tensor | float = 0.0, log_scale: Tensor | float = 0.0) -> Tensor:
    """The log density of each entry."""
    scale = log_scale.exp() if isinstance(log_scale, Tensor) else torch.e**log_scale
    return -0.5 * ((z - loc) / scale).square() - log_scale - _HALF_LOG_2PI


def draw(loc: Tensor, log_scale: Tensor, num_particles: int) -> Tensor:  # (K, *loc.shape)
    """K draws of each entry."""
    noise = torch.randn(num_particles, *loc.shape, dtype=loc.dtype)
    return loc + log_scale.exp() * noise


class Normals(nn.Module):
    """A loc and a log scale for every unknown, by name.

    Args:
        sizes: shapes of the unknowns.
    """

    def __init__(self, **sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.loc = nn.ParameterDict({k: 0.1 * torch.randn(size) for k, size in sizes.items()})
        self.log_scale = nn.ParameterDict({k: torch.full(s, -1.0) for k, s in sizes.items()})

    def of(self, name: str) -> dist.Normal:
        return dist.Normal(self.loc[name], self.log_scale[name].exp())

    def draws(self, name: str, num_particles: int) -> tuple[Tensor, Tensor]:
        """K draws ``(K, *size)`` by hand, and the sum of their log densities."""
        loc, log_scale = self.loc[name], self.log_scale[name]
        drawn = draw(loc, log_scale, num_particles)
        return drawn, log_normal(drawn, loc, log_scale).sum()
