"""Sequential Monte Carlo: annealed chains of which the hopeless are replaced on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_lvm.diagnostics.ais import AIS, Resampled
from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.hmc import Point
from pyro_lvm.layout import chosen_rows
from pyro_lvm.weights import effective_sample_size, log_mean_exp

__all__ = ["SMC"]


@dataclass(frozen=True)
class SMC(AIS):
    r"""How to anneal populations of particles that are resampled where their weights differ.

    Each datum has populations of its own. Where the effective sample size of one has fallen
    below ``threshold * num_particles``, its particles are drawn anew in proportion to their
    weights, by systematic resampling, and go on with equal ones. The product of the mean
    weights so far is the one weight of the population, p(x) in expectation whatever their
    number: several populations give a standard error, as several chains of AIS do.

    Args:
        num_temperatures: T, steps from the start distribution to the posterior.
        num_leapfrog: leapfrog steps of each transition, one gradient of the model each.
        initial: where particles start; see :class:`~pyro_lvm.diagnostics.AIS`.
        num_particles: of one population.
        threshold: share of ``num_particles``; 0 for AIS whose chains are averaged, 1 to resample
            at each temperature.

    Raises:
        PyroLVMError: a count below 1, a threshold outside [0, 1], or an unknown start.

    References:
        Del Moral, Doucet, Jasra (2006), *Sequential Monte Carlo samplers*, J. R. Statist. Soc. B
        68(3), section 3.

    Example:
        >>> SMC(num_particles=16).population
        16
    """

    num_temperatures: int = 100
    num_particles: int = 8
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_particles", self.num_particles)
        if not 0 <= self.threshold <= 1:
            hint = "Pass threshold=0.5."
            raise PyroLVMError(explain("threshold", "0 to 1", repr(self.threshold), hint))

    @property
    def population(self) -> int:
        return self.num_particles

    def resampled(self, point: Point, log_weights: Tensor) -> Resampled:
        """Particles ``(populations * num_particles, *batch)`` that go on to the next target."""
        by_population = log_weights.unflatten(0, (-1, self.num_particles)).transpose(0, 1)
        size = effective_sample_size(by_population)  # (populations, *batch)
        poor = size < self.threshold * self.num_particles
        rows = torch.where(poor, systematic(by_population), _themselves(by_population))
        first = self.num_particles * torch.arange(len(size), device=rows.device)
        rows = (rows + first.reshape(1, -1, *[1] * (size.dim() - 1))).transpose(0, 1).flatten(0, 1)
        kept = torch.where(poor, 0.0, by_population).transpose(0, 1).flatten(0, 1)
        log_mean = torch.where(poor, log_mean_exp(by_population), 0.0)
        return Resampled(Point(*[chosen_rows(part, rows) for part in point]), kept, log_mean)


def systematic(log_weights: Tensor) -> Tensor:
    """Rows drawn in proportion to weights ``(M, *batch)``, each floor or ceil of M w times.

    References:
        Kitagawa (1996), *Monte Carlo filter and smoother for non-Gaussian nonlinear state space
        models*, J. Comput. Graph. Statist. 5(1), appendix.

    Example:
        >>> systematic(torch.tensor([[0.5], [0.25], [0.25], [0.0]]).log()).T
        tensor([[0, 0, 1, 2]])
    """
    ends = torch.softmax(log_weights, 0).cumsum(0).movedim(0, -1).contiguous()
    steps = torch.arange(len(log_weights), device=ends.device)
    points = (torch.rand_like(ends[..., :1]) + steps) / len(steps)
    rows = torch.searchsorted(ends, points, right=True)
    return rows.clamp(max=len(steps) - 1).movedim(-1, 0)


def _themselves(like: Tensor) -> Tensor:
    rows = torch.arange(len(like), device=like.device)
    return rows.reshape(-1, *[1] * (like.dim() - 1)).expand(like.shape)
