"""The negative binomial in single precision, whatever the size of its counts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["PreciseNegativeBinomial"]

_LARGE = 20.0
"""From here on the terms of Stirling's series that are left out are below 1e-12."""


class PreciseNegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    r"""Pyro's, with a log-probability that keeps its digits at large counts.

    .. math:: \log p(x) = \theta \log \sigma(-l) + x \log \sigma(l)
        - \log(\theta + x) - \log B(\theta, x + 1)

    With three log-gammas in place of the beta function, each near x log(x), float32 errs by 0.6
    nats at a million and by 60 at 1e8: as much as the weights of particles differ.

    Example:
        >>> x, theta, logits = torch.tensor([1e8, 2.5, 17.0])
        >>> PreciseNegativeBinomial(theta, logits=logits).log_prob(x)
        tensor(-19.2936)
        >>> dist.NegativeBinomial(theta, logits=logits).log_prob(x)
        tensor(-46.9246)
        >>> dist.NegativeBinomial(theta.double(), logits=logits.double()).log_prob(x.double())
        tensor(-19.2936, dtype=torch.float64)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        theta: Tensor = self.total_count
        trials: Tensor = theta * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        beta = _log_beta(torch.minimum(theta, value + 1), torch.maximum(theta, value + 1))
        return trials - torch.log(theta + value) - beta


def _log_beta(small: Tensor, large: Tensor) -> Tensor:
    """``log B(small, large)``, ``small <= large``."""
    direct = torch.lgamma(large) - torch.lgamma(small + large)
    series = _log_gamma_fall(small, large.clamp(min=_LARGE))
    return torch.lgamma(small) + torch.where(large < _LARGE, direct, series)


def _log_gamma_fall(step: Tensor, x: Tensor) -> Tensor:
    """``lgamma(x) - lgamma(x + step)`` by Stirling's series, its large terms taken together."""
    end = x + step
    return (
        step * (1 - torch.log(end))
        - (x - 0.5) * torch.log1p(step / x)
        + _remainder(x)
        - _remainder(end)
    )


def _remainder(x: Tensor) -> Tensor:
    """``lgamma(x) - ((x - 1/2) log(x) - x + log(2 pi) / 2)``."""
    inverse = 1 / x
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))
