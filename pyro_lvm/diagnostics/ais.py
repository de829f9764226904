r"""Annealed importance sampling: weights whose mean is the evidence, whatever the guide.

A chain starts at :math:`z_0 \sim q_0` and moves through :math:`q_0^{1 - \beta} p(x, \cdot)^\beta`
for rising :math:`\beta`, a Hamiltonian Monte Carlo transition at each. Its weight is
:math:`\prod_t (p(x, z_{t-1}) / q_0(z_{t-1}))^{\beta_t - \beta_{t-1}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import NamedTuple

from torch import Tensor

from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.hmc import Point

__all__ = ["AIS", "Resampled"]


class Resampled(NamedTuple):
    """Chains that go on, with the weights ``(chains, *batch)`` they go on with.

    ``log_mean``, broadcastable to ``(populations, *batch)``, is the log-weight that they leave
    behind.
    """

    point: Point
    log_weights: Tensor
    log_mean: Tensor


@dataclass(frozen=True)
class AIS:
    r"""How to anneal.

    Args:
        num_temperatures: T, steps from the start distribution to the posterior. One is plain
            importance sampling from the start distribution.
        num_leapfrog: leapfrog steps of each transition, one gradient of the model each.
        initial: where chains start: ``"prior"``, for which the guide may be None, or
            ``"guide"``, a diagonal Normal with the moments of the guide's draws of each datum
            (in unconstrained space), for which the guide needs no density.

    Raises:
        PyroLVMError: a count below 1, or an unknown start.

    Example:
        >>> [round(beta, 2) for beta in AIS(num_temperatures=4).betas()]
        [0.0, 0.1, 0.5, 0.9, 1.0]
    """

    num_temperatures: int = 500
    num_leapfrog: int = 10
    initial: str = "prior"

    def __post_init__(self) -> None:
        check_count("num_temperatures", self.num_temperatures)
        check_count("num_leapfrog", self.num_leapfrog)
        if self.initial not in ("prior", "guide"):
            hint = "Pass initial='prior'."
            raise PyroLVMError(explain("initial", "'prior' or 'guide'", repr(self.initial), hint))

    @property
    def population(self) -> int:
        """How many chains make one weight."""
        return 1

    def resampled(self, point: Point, log_weights: Tensor) -> Resampled:
        """What goes on between two temperatures: each chain by itself, as it is."""
        return Resampled(point, log_weights, log_weights.new_zeros(()))

    def betas(self) -> list[float]:
        """The T + 1 inverse temperatures from 0 to 1, close together at both ends.

        References:
            Wu et al. (2017), arXiv:1611.04273: a scaled sigmoid, from -4 to 4.
        """
        count = self.num_temperatures
        raw = [1 / (1 + exp(4 - 8 * t / count)) for t in range(count + 1)]
        return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]
