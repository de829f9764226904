"""The evidence lower bound."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_lvm.objective import Objective

__all__ = ["ELBO"]


class ELBO(Objective):
    r"""Evidence lower bound, in nats per datum: the mean of the log-weights.

    .. math:: \tfrac1K \sum_k \log w_k, \qquad w_k = p(x, z_k) / q(z_k \mid x)

    K draws lower the noise of the estimate and do not tighten the bound. ``gradient="stl"``
    leaves out the score of the guide, whose mean is zero: no gradient noise is left where
    the guide is the exact posterior. ``"dreg"`` is then the same estimator, and ``"score"``
    and ``"vimco"`` are both leave-one-out REINFORCE.

    References:
        Kingma, Welling (2014), *Auto-encoding variational Bayes*, arXiv:1312.6114, eq. 2.
        Ranganath, Gerrish, Blei (2014), *Black box variational inference*, arXiv:1401.0118.

    Args:
        num_particles: draws per datum, K >= 1.
        gradient: any of "reparam", "stl", "dreg", "score", "vimco".
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        The guide is the exact posterior, so every draw gives log p(x).

        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> x = torch.tensor([0.0, 2.0])
        >>> ELBO().bound(model, guide, x)
        tensor([-1.2655, -2.2655])
        >>> dist.Normal(0.0, 2**0.5).log_prob(x)
        tensor([-1.2655, -2.2655])
    """

    is_linear: ClassVar[bool] = True

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return torch.zeros_like(log_weights)

    def bound_of_others(self, log_weights: Tensor) -> Tensor:
        return (log_weights.sum(0) - log_weights) / max(1, len(log_weights) - 1)

    def bound_with(self, log_weights: Tensor, instead: Tensor) -> Tensor:
        return (log_weights.sum(0) - log_weights + instead) / len(log_weights)
