"""Log-probabilities of large counts without their large terms, which nearly cancel.

Where log x! and x log(mean) meet, single precision loses what particles differ by: both are about
x log(x), and their difference is of the order of log(x).

References:
    Loader (2000), *Fast and accurate computation of binomial probabilities*.
"""

from __future__ import annotations

from math import tau

import torch
from torch import Tensor

__all__ = ["deviance", "log_gamma_rest", "positive"]

_LARGE = 20.0
"""From here on the terms of Stirling's series that are left out are below 1e-12."""
_NEAR = 0.1
"""Relative distance up to which the logarithm of a ratio is that of one plus the distance."""


def log_gamma_rest(x: Tensor) -> Tensor:
    """``lgamma(x + 1) - (x log(x) - x)``, of ``x`` from 0 on.

    Example:
        >>> log_gamma_rest(torch.tensor([0.0, 1.0, 1e8]))
        tensor([ 0.0000,  1.0000, 10.1293])
    """
    few, many = x.clamp(max=_LARGE), x.clamp(min=_LARGE)
    direct = torch.lgamma(few + 1) - torch.xlogy(few, few) + few
    series = 0.5 * torch.log(tau * many) + _remainder(many)
    return torch.where(x < _LARGE, direct, series)


def deviance(x: Tensor, excess: Tensor, log_ratio: Tensor) -> Tensor:
    """``mean - x - x log(mean / x)``, at least 0, of a mean that is ``x + excess``.

    Args:
        x: from 0 on.
        excess: of the mean over ``x``, and
        log_ratio: ``log(mean / positive(x))``, each as exact as it can be had.

    Example:
        >>> x, mean = torch.tensor([0.0, 1e8]), torch.tensor([2.0, 1.0001e8])
        >>> deviance(x, mean - x, torch.log(mean / positive(x)))
        tensor([2.0000, 0.5000])
    """
    distance = excess / positive(x)
    near = torch.log1p(distance.clamp(-_NEAR, _NEAR))
    return excess - x * torch.where(distance.abs() < _NEAR, near, log_ratio)


def positive(x: Tensor) -> Tensor:
    """``x``, and 1 in place of 0, for ratios that are multiplied by ``x`` again."""
    return torch.where(x > 0, x, torch.ones_like(x))


def _remainder(x: Tensor) -> Tensor:
    """``lgamma(x) - ((x - 1/2) log(x) - x + log(2 pi) / 2)``."""
    inverse = 1 / x
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))
