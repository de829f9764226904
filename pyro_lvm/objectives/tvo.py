"""The thermodynamic variational objective."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.weighted import Coefficients, WeightedObjective

__all__ = ["TVO"]


class TVO(WeightedObjective):
    r"""Left Riemann sum of the thermodynamic integral of log p(x), in nats per datum.

    .. math:: \log p(x) = \int_0^1 \mathbb E_{\pi_\beta} [\log w] \, d\beta \ge
        \sum_{j} (\beta_{j+1} - \beta_j) \, \mathbb E_{\pi_{\beta_j}} [\log w], \qquad
        \pi_\beta \propto p(x, z)^\beta q(z \mid x)^{1 - \beta}

    The integrand rises with beta, so the left sum is a lower bound and the right one an upper
    bound. Each expectation is taken over the same K draws of q with weights proportional to
    :math:`w^\beta`. The mean of this estimate is the derivative of :math:`E \log \tfrac1K
    \sum_k w_k^\beta`, which rises with beta too: the left sum's mean lies between the ELBO and
    the importance-weighted bound of K draws, a lower bound for any K. That of
    :meth:`upper_sum` lies above the importance-weighted bound, and above log p(x) only as K
    grows: an estimate. One partition is the ELBO.

    The gradient needs no path: it is that of each expectation by its covariance with
    :math:`\log \pi_\beta`, with the draws held fixed, so sites of any kind are trained. It is
    exact for one partition, and biased by O(1/K) through the weights for more.

    References:
        Masrani, Le, Wood (2019), *The thermodynamic variational objective*,
        arXiv:1907.00031, eq. 7 and 12.

    Args:
        num_partitions: number of intervals of beta.
        first_beta: the smallest beta above 0; the others are evenly spaced in log up to 1.
        num_particles: draws per datum, K >= 2.
        gradient: "score".
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> log_weights = torch.tensor([[1.0], [3.0]]).log()  # (K=2, batch=1)
        >>> objective = TVO(num_particles=2, num_partitions=2, first_beta=0.5)
        >>> objective.bound_per_datum(log_weights), objective.upper_sum(log_weights)
        (tensor([0.6229]), tensor([0.7602]))
    """

    takes: ClassVar[tuple[str, ...]] = ("score",)

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "score",
        *,
        num_partitions: int = 5,
        first_beta: float = 0.02,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        self.num_partitions = _check_partitions(num_partitions)
        self.first_beta = _check_first(first_beta)
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        betas = self._betas(log_weights)
        return self._sum(log_weights, betas[:-1], betas.diff())

    def upper_sum(self, log_weights: Tensor) -> Tensor:
        """The right Riemann sum, ``(*batch,)`` nats, from log-weights ``(K, *batch)``."""
        betas = self._betas(log_weights)
        return self._sum(log_weights, betas[1:], betas.diff())

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        betas = self._betas(log_weights)
        left, widths = (_against(b, log_weights) for b in (betas[:-1], betas.diff()))
        share = torch.softmax(left * log_weights, 1)  # (J, K, *batch)
        count = log_weights.shape[0]
        excess = log_weights - (share * log_weights).sum(1, keepdim=True)
        covariance = share * excess * (count / (count - 1))
        model = (widths * (share + left * covariance)).sum(0)
        score = (widths * ((1.0 - left) * covariance - share)).sum(0)
        return Coefficients(model, score=score)

    def _betas(self, like: Tensor) -> Tensor:  # (num_partitions + 1,)
        zero, last = like.new_zeros(1), like.new_ones(1)
        if self.num_partitions == 1:
            return torch.cat([zero, last])
        steps = torch.linspace(1.0, 0.0, self.num_partitions, dtype=like.dtype, device=like.device)
        return torch.cat([zero, torch.pow(self.first_beta, steps)])

    def _sum(self, log_weights: Tensor, betas: Tensor, widths: Tensor) -> Tensor:
        share = torch.softmax(_against(betas, log_weights) * log_weights, 1)
        means = (share * log_weights).sum(1, keepdim=True)
        return (_against(widths, log_weights) * means).sum((0, 1))


def _against(values: Tensor, log_weights: Tensor) -> Tensor:  # (J, 1, *ones)
    return values.reshape(-1, *(1,) * log_weights.dim())


def _check_partitions(number: int) -> int:
    if not isinstance(number, int) or number < 1:
        hint = "Pass num_partitions=5."
        raise ProgramError(explain("num_partitions", "an integer >= 1", repr(number), hint))
    return number


def _check_first(beta: float) -> float:
    if not 0.0 < beta < 1.0:
        hint = "Pass first_beta=0.02."
        raise ProgramError(explain("first_beta", "a number between 0 and 1", repr(beta), hint))
    return beta
