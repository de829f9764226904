"""Mixtures of Normals whose shares are equal and fixed."""

from __future__ import annotations

from math import log
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.distributions import Normal

__all__ = ["EqualMixture"]

_NO_SIZE = Size()


class EqualMixture(TorchDistribution):
    r"""M Normals in D dims with diagonal covariances, each with the share 1/M.

    .. math:: q(z) = \tfrac1M \sum_m N(z; \mu_m, \operatorname{diag} \sigma_m^2), \qquad
        \nabla E_q f(z) = \tfrac1M \sum_m E \, \nabla f(\mu_m + \sigma_m \epsilon)

    As no share is learned, a draw has the path derivative of its component. Learned shares of
    components that are far apart have rare and large gradients, and may go astray; here a mode
    has the share of the components that end in it, so that these should begin evenly spread.

    Args:
        loc: :math:`\mu`, ``(M, D)``.
        scale: :math:`\sigma`, ``(M, D)``.
        batch_shape: of independent copies.
        validate_args: whether parameters and values are checked; Pyro's default if left out.

    Example:
        >>> q = EqualMixture(torch.tensor([[-3.0], [3.0]]), torch.ones(2, 1))
        >>> q.event_shape, q.rsample((5,)).shape
        (torch.Size([1]), torch.Size([5, 1]))
        >>> q.log_prob(torch.tensor([3.0]))
        tensor(-1.6121)
        >>> q.mean, q.variance
        (tensor([0.]), tensor([10.]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        batch_shape: Size = _NO_SIZE,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc.mean(0).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        square = self.scale.square() + (self.loc - self.loc.mean(0)).square()
        return square.mean(0).expand(self.batch_shape + self.event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> EqualMixture:
        shape = Size(batch_shape)
        return EqualMixture(self.loc, self.scale, shape, validate_args=self._validate_args)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:
        shape = Size(sample_shape) + self.batch_shape
        which = torch.randint(len(self.loc), shape, device=self.loc.device)
        noise = torch.randn(shape + self.event_shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc[which] + self.scale[which] * noise

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        components = Normal(self.loc, self.scale, validate_args=False)
        by_component = components.log_prob(value.unsqueeze(-2)).sum(-1)
        score: Tensor = by_component.logsumexp(-1) - log(len(self.loc))
        return score.expand(torch.broadcast_shapes(score.shape, self.batch_shape))
