"""The negative binomial: its dispersion by moments, and large counts in single precision."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_lvm.distributions.stirling import deviance, log_gamma_rest, positive

__all__ = ["PreciseNegativeBinomial", "inverse_dispersion_of"]

_LEAST = 1e-3  # a mean of 0 is that of a column too short to have seen more


class PreciseNegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]
    r"""Pyro's, with a log-probability that keeps its digits at large counts.

    .. math:: \log p(x) = \log\tfrac{\theta}{n} + S(n) - S(\theta) - S(x)
        - D(\theta, n \sigma(-l)) - D(x, n \sigma(l)), \qquad n = \theta + x

    with :math:`S(a) = \log \Gamma(a + 1) - (a \log a - a)` and
    :math:`D(a, b) = b - a - a \log(b / a)`. With three log-gammas instead, each near x log(x),
    float32 errs by 0.6 nats at a million and by 60 at 1e8: as much as the weights of particles
    differ.

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
        theta, logits, x = _once(self.total_count), self.logits, value.to(self.logits)
        n = theta + x
        of_theta = torch.log1p(x / theta)  # log(n / theta)
        of_x = torch.log1p(theta / positive(x))
        excess = theta * logits.sigmoid() - x * (-logits).sigmoid()
        return (
            log_gamma_rest(n)
            - log_gamma_rest(theta)
            - log_gamma_rest(x)
            - of_theta
            - deviance(theta, -excess, of_theta + logsigmoid(-logits))
            - deviance(x, excess, of_x + logsigmoid(logits))
        )


def inverse_dispersion_of(x: Tensor) -> Tensor:  # (D,)
    r"""The inverse dispersion of each column of counts, by their moments.

    .. math:: \theta = m^2 / \max(v - m,\, m \sqrt{2 / n})

    with mean m and variance v of n observed counts. Of Poisson counts :math:`v - m` has the
    standard error :math:`m \sqrt{2 / n}`: data do not tell a smaller excess from none, and
    columns of no more variance than Poisson ones, constants and few counts start there.

    References:
        Anscombe (1950), *Sampling theory of the negative binomial and logarithmic series
        distributions*, Biometrika 37.

    Args:
        x: counts ``(N, D)``, NaN where missing.

    Example:
        >>> inverse_dispersion_of(torch.tensor([[0.0, 4.0], [0.0, 4.0], [9.0, torch.nan]]))
        tensor([0.6000, 4.0000])
    """
    numbers = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    count = (~numbers.isnan()).sum(0).clamp(min=1)
    mean = numbers.nanmean(0).nan_to_num(0.0)
    variance = (numbers - mean).square().nanmean(0).nan_to_num(0.0)
    mean = mean.clamp(min=_LEAST)
    return mean.square() / torch.maximum(variance - mean, mean * (2 / count).sqrt())


def _once(parameter: Tensor) -> Tensor:
    """Of size 1 in the dims along which it is only expanded."""
    for dim, stride in enumerate(parameter.stride()):
        if stride == 0:
            parameter = parameter.narrow(dim, 0, 1)
    return parameter
