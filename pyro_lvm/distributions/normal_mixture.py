"""Mixtures of univariate Normals, with a path derivative in every parameter."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

__all__ = ["NormalMixture"]

_NO_SIZE = Size()


class NormalMixture(TorchDistribution):
    r"""A mixture of M univariate Normals; M = 1 is the Normal.

    Draws are differentiable, the choice of a component too. With the distribution function
    :math:`F_\phi`, which is closed form here,

    .. math:: \partial_\phi z = - \partial_\phi F_\phi(z) / q_\phi(z)

    at a fixed draw z. For M = 1 this is the derivative of :math:`\mu + \sigma \epsilon`.

    References:
        Figurnov, Mohamed, Mnih (2018), *Implicit reparameterization gradients*,
        arXiv:1805.08498.

    Args:
        logits: of the components, ``(*batch, M)``, up to a constant.
        loc: their means, ``(*batch, M)``.
        scale: their standard deviations, ``(*batch, M)``.
        validate_args: whether parameters and values are checked; Pyro's default if left out.

    Example:
        >>> q = NormalMixture(torch.zeros(5, 2), torch.tensor([-1.0, 1.0]), torch.ones(2))
        >>> q.batch_shape, q.rsample((3,)).shape
        (torch.Size([5]), torch.Size([3, 5]))
        >>> q.mean[0], q.variance[0]
        (tensor(0.), tensor(2.))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real
    has_rsample = True

    logits: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None
    ) -> None:
        parts = torch.broadcast_tensors(logits.log_softmax(-1), loc, scale)
        self.logits, self.loc, self.scale = parts
        super().__init__(self.logits.shape[:-1], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        mean: Tensor = (self.logits.exp() * self.loc).sum(-1)
        return mean

    @property
    def variance(self) -> Tensor:
        square = self.scale.square() + (self.loc - self.mean.unsqueeze(-1)).square()
        variance: Tensor = (self.logits.exp() * square).sum(-1)
        return variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> NormalMixture:
        shape = (*batch_shape, self.logits.shape[-1])
        logits, loc, scale = (each.expand(shape) for each in (self.logits, self.loc, self.scale))
        return NormalMixture(logits, loc, scale, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, ``(*batch,)``."""
        if self._validate_args:
            self._validate_sample(value)
        normals = dist.Normal(self.loc, self.scale, validate_args=False)
        return torch.logsumexp(self.logits + normals.log_prob(value.unsqueeze(-1)), -1)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        draw = self._draw(Size(sample_shape))
        if not torch.is_grad_enabled():
            return draw
        probability = self._probability(draw)
        density = self.log_prob(draw).detach().exp()
        return draw - (probability - probability.detach()) / density

    @torch.no_grad()
    def _draw(self, sample_shape: Size) -> Tensor:
        shape = sample_shape + self.batch_shape
        component = dist.Categorical(logits=self.logits).sample(sample_shape).unsqueeze(-1)
        loc, scale = (
            part.expand(*shape, -1).gather(-1, component).squeeze(-1)
            for part in (self.loc, self.scale)
        )
        return loc + scale * torch.randn_like(loc)

    def _probability(self, value: Tensor) -> Tensor:
        """F(value) up to a constant, counted from the nearer end: no digits are lost there."""
        standard = (value.unsqueeze(-1) - self.loc) / self.scale
        is_high = (value > self.mean).unsqueeze(-1)
        side = torch.where(is_high, -_ndtr(-standard), _ndtr(standard))
        probability: Tensor = (self.logits.exp() * side).sum(-1)
        return probability


def _ndtr(value: Tensor) -> Tensor:
    probability: Tensor = torch.special.ndtr(value)
    return probability
