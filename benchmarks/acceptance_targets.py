"""Four densities on the plane that are hard for a sampler: modes far apart, and rings.

They are those of the A-NICE-MC paper, normalised here, so that exact draws, moments and the mass
of cells are known. A sampler is judged on both coordinates and on the radius.

References:
    Song, Zhao, Ermon (2017), *A-NICE-MC: adversarial training for MCMC*, arXiv:1706.07561,
    section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any, NamedTuple

import arviz as az
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyro_lvm.random_state import kept_random_state

__all__ = ["TARGETS", "Radial", "mixture", "model", "scores"]

EXACT = 200_000  # draws for moments and masses
LOWEST_CORRELATION = 0.05  # where the sum over lags ends
RADII = torch.linspace(0.0, 8.0, 8001, dtype=torch.float64)


class Radial(TorchDistribution):
    """A density of the radius alone: ``log_shape(r)`` up to a constant, for r below 8."""

    arg_constraints = {}  # noqa: RUF012  # as every torch distribution has it
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, log_shape: Callable[[Tensor], Tensor], batch_shape: Any = ()) -> None:
        self.log_shape = log_shape
        mass = RADII * log_shape(RADII).exp()
        self.log_total = torch.trapezoid(2 * pi * mass, RADII).log().item()
        self.cumulative = mass.cumsum(0) / mass.sum()
        super().__init__(torch.Size(batch_shape), torch.Size([2]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Radial:
        return Radial(self.log_shape, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        place = torch.searchsorted(self.cumulative, torch.rand(shape, dtype=torch.float64))
        radius = RADII[place.clamp(max=len(RADII) - 1)].float()
        angle = 2 * pi * torch.rand(shape)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_shape(value.norm(dim=-1)) - self.log_total


def mixture(centres: Tensor) -> dist.MixtureSameFamily:
    """Equal shares of Normals of standard deviation 1/2."""
    normals = dist.Normal(centres, 0.5).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(centres))), normals)


def _five_rings(r: Tensor) -> Tensor:
    return -((r[..., None] - torch.arange(1.0, 6.0)) / 0.2).square().amin(-1)


_ANGLES = torch.arange(6) * pi / 3
TARGETS: dict[str, Any] = {
    "ring": Radial(lambda r: -((r - 2) / 0.4).square()),
    "mog2": mixture(torch.tensor([[-5.0, 0.0], [5.0, 0.0]])),
    "mog6": mixture(5 * torch.stack([_ANGLES.cos(), _ANGLES.sin()], -1)),
    "rings": Radial(_five_rings),
}


def model(name: str) -> None:
    pyro.sample("z", TARGETS[name])


class _Known(NamedTuple):
    mean: Tensor  # (3,)
    variance: Tensor  # (3,)
    cells: Tensor  # (225,)


_known: dict[str, _Known] = {}


def known(name: str) -> _Known:
    """Moments and masses, from exact draws of a seed of their own."""
    if name not in _known:
        with kept_random_state():
            torch.manual_seed(0)
            z = TARGETS[name].sample((EXACT,))
        statistics = _statistics(z)
        _known[name] = _Known(statistics.mean(0), statistics.var(0), _cells(z))
    return _known[name]


def scores(name: str, draws: Tensor) -> dict[str, float]:
    """What chains ``(chains, draws, 2)`` are worth, per 1000 transitions, and how far off."""
    exact = known(name)
    per_thousand = 1000 / draws.shape[:2].numel()
    statistics = _statistics(draws)
    by_statistic = [
        _effective((statistics[..., i] - exact.mean[i]) / exact.variance[i].sqrt())
        for i in range(3)
    ]
    bulk = min(float(az.ess(statistics[..., i].numpy())) for i in range(3))
    found = {
        "ESS per 1000": min(by_statistic) * per_thousand,
        "bulk ESS per 1000": bulk * per_thousand,
        "total variation": (0.5 * (_cells(draws.flatten(0, 1)) - exact.cells).abs().sum()).item(),
    }
    if name == "mog2":
        found["share of the right mode"] = (draws[..., 0] > 0).float().mean().item()
    return found


def _effective(standardised: Tensor) -> float:
    """Sample size worth the chains ``(chains, draws)``, of known mean 0 and variance 1."""
    chains, length = standardised.shape
    size = 2 * length
    spectrum = torch.fft.rfft(standardised.double(), size).abs().square()
    correlation = torch.fft.irfft(spectrum, size)[:, :length].mean(0) / length
    low = (correlation[1:] <= LOWEST_CORRELATION).nonzero()
    last = int(low[0]) if len(low) else length - 1
    return chains * length / (1 + 2 * float(correlation[1 : 1 + last].sum()))


def _statistics(z: Tensor) -> Tensor:  # (*, 3)
    return torch.cat([z, z.norm(dim=-1, keepdim=True)], -1)


def _cells(z: Tensor) -> Tensor:
    """Shares of draws ``(n, 2)`` in the squares of side 1 of [-7.5, 7.5]^2."""
    place = (z + 7.5).floor().clamp(0, 14).long()
    counts = torch.bincount(place[:, 0] * 15 + place[:, 1], minlength=225)
    return counts / len(z)
