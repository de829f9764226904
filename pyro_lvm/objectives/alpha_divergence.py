"""Guides that minimise an alpha-divergence from the posterior, forward and reverse KL included."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import is_number
from pyro_lvm.weighted import Coefficients, WeightedObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["AlphaDivergence", "descend_alpha_divergence"]


class AlphaDivergence(WeightedObjective):
    r"""Amari's alpha-divergence of the guide from the posterior; the model by its evidence.

    .. math:: D_\alpha(p \,\|\, q) = \frac{1}{\alpha (\alpha - 1)}
        \Bigl( \mathbb E_{q} \bigl[ (p(z \mid x) / q(z \mid x))^\alpha \bigr] - 1 \Bigr)

    ``alpha=0`` is KL(q || p), the ELBO's; 0.5 is four times the squared Hellinger distance; 1
    is KL(p || q), as in :class:`~pyro_lvm.objectives.ReweightedWakeSleep`; 2 is half of
    chi-square. A larger alpha makes the guide cover the posterior, a smaller one makes it seek
    a mode. The guide descends the self-normalised estimate

    .. math:: \frac{K}{K - 1} \sum_k \frac{\tilde w_k^{(\alpha)} - 1/K}{\alpha} \,
        \partial_\phi \log q(z_k \mid x), \qquad \tilde w_k^{(\alpha)} \propto w_k^\alpha,

    whose mean is that of :math:`-\partial_\phi \log(1 + \alpha (\alpha - 1) D_\alpha) /
    (\alpha (\alpha - 1))` up to O(1/K); at alpha = 0 it is exact for any K >= 2. The model
    ascends the importance-weighted bound of the same draws, which is the bound reported, in
    nats per datum.

    References:
        Minka (2005), *Divergence measures and message passing*, MSR-TR-2005-173.
        Hernández-Lobato et al. (2016), *Black-box α-divergence minimization*,
        arXiv:1511.03243.

    Args:
        alpha: any finite number.
        num_particles: draws per datum, K >= 2.
        gradient: "score" holds the draws fixed, so that sites of any kind are trained; "dreg"
            has the same mean through reparameterised draws.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> log_weights = torch.tensor([[1.0], [3.0]]).log()  # (K=2, batch=1)
        >>> objective = AlphaDivergence(num_particles=2, alpha=1.0)
        >>> objective.coefficients(log_weights).score.squeeze(1)
        tensor([-0.5000,  0.5000])
    """

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "score",
        *,
        alpha: float = 1.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        if not is_number(alpha) or not isfinite(alpha):
            hint = "Pass alpha=1.0 for KL(p || q), 0.0 for KL(q || p)."
            raise ProgramError(explain("alpha", "a finite number", repr(alpha), hint))
        self.alpha = alpha
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights)

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        return descend_alpha_divergence(log_weights, self.alpha, self.gradient)


def descend_alpha_divergence(
    log_weights: Tensor, alpha: float, gradient: str, rate: float = 1.0
) -> Coefficients:
    """Weights that ascend the evidence in the model and descend the divergence in the guide.

    ``rate`` multiplies those of the guide.
    """
    model = torch.softmax(log_weights, 0)
    count = log_weights.shape[0]
    unbiased = rate * count / (count - 1)
    share = torch.softmax(alpha * log_weights, 0)
    if gradient == "dreg":
        return Coefficients(model, path=unbiased * share * (1.0 - share))
    if alpha == 0.0:
        return Coefficients(model, score=unbiased * (log_weights - log_weights.mean(0)) / count)
    return Coefficients(model, score=unbiased * (share - 1.0 / count) / alpha)
