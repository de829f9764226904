"""A Normal whose scale may be of any order of magnitude: the proper log-uniform prior."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.distributions import Normal, register_kl

from pyro_lvm.errors import ProgramError, explain

__all__ = ["LogUniformScale"]

_NO_SIZE = Size()
_EULER = 0.5772156649015329
_AT_ZERO = log(2.0) - (_EULER + log(2.0)) / 2 - (1.0 + log(2.0 * pi)) / 2
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al., eq. 14
_FLAT = 1e-4  # of the smaller scale: nearer to 0 the density is constant to a relative 2e-9


class LogUniformScale(TorchDistribution):
    r"""Normals about 0 with all scales between two ends, each order of magnitude alike.

    .. math:: \log s \sim U(\log a, \log b), \quad w \mid s \sim N(0, s^2), \qquad
        p(w) = \frac{\Phi(|w| / a) - \Phi(|w| / b)}{|w| \log(b / a)}

    Between the ends this is 1 / (2 \|w\| log(b / a)), the log-uniform prior of sparse variational
    dropout. That one is improper, and has no evidence to bound; this one is a density.

    ``torch.distributions.kl_divergence(Normal(m, s), prior)`` is the paper's approximation, which
    depends on :math:`\alpha = s^2 / m^2` alone, with the constant that belongs to a and b. It is
    for a far below, b far above all likely w: within 0.01 nats then.
    :class:`~pyro_lvm.objectives.AnalyticELBO` and Pyro's ``TraceMeanField_ELBO`` use it. The other
    objectives take the density at draws, whose slope -1 / w has infinite variance under a Normal
    around 0: little is pruned then.

    References:
        Molchanov, Ashukha, Vetrov (2017), *Variational dropout sparsifies deep neural networks*,
        arXiv:1701.05369, eq. 14.

    Args:
        low: a, ``(*batch,)``.
        high: b, ``(*batch,)``, above a.
        validate_args: whether the ends are checked; Pyro's default if left out.

    Raises:
        ProgramError: a not above 0, or b not above a.

    Example:
        >>> prior = LogUniformScale(torch.tensor(1e-3), torch.tensor(1.0))
        >>> w = torch.tensor([0.0, 0.01, 0.1, 10.0])
        >>> prior.log_prob(w).exp()
        tensor([5.7695e+01, 7.1805e+00, 6.6617e-01, 1.1031e-25])
        >>> 1 / (2 * w[1:3] * 6.9078)
        tensor([7.2382, 0.7238])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(self, low: Tensor, high: Tensor, validate_args: bool | None = None) -> None:
        self.low, self.high = torch.broadcast_tensors(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args and not bool(((low > 0) & (low < high)).all()):
            expected, found = "0 < low < high", f"low={low} and high={high}"
            hint = "Pass low=torch.tensor(1e-3), high=torch.tensor(1.0)."
            raise ProgramError(explain("LogUniformScale", expected, found, hint))

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogUniformScale:
        low, high = (end.expand(batch_shape) for end in (self.low, self.high))
        return LogUniformScale(low, high, validate_args=False)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        shape = Size(sample_shape) + self.batch_shape
        share = self.low.new_empty(shape).uniform_()
        scale = self.low ** (1 - share) * self.high**share
        drawn: Tensor = scale * self.low.new_empty(shape).normal_()
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:  # (*left, *batch)
        """Nats. One form up to b, another above, where both distribution functions are near 1."""
        size = torch.maximum(value.abs(), _FLAT * self.low)
        inner, outer = torch.minimum(size, self.high), torch.maximum(size, self.high)
        erf_low, erf_high = (torch.erf(inner / (end * 2**0.5)) for end in (self.low, self.high))
        near = (0.5 * (erf_low - erf_high)).log()
        log_low, log_high = (torch.special.log_ndtr(-outer / end) for end in (self.low, self.high))
        far = log_high + torch.log1p(-(log_low - log_high).exp())
        mass = torch.where(size < self.high, near, far)
        log_p: Tensor = mass - size.log() - (self.high / self.low).log().log()
        return log_p


@register_kl(Normal, LogUniformScale)  # type: ignore[untyped-decorator]
def _divergence(q: Normal, p: LogUniformScale) -> Tensor:
    """For a far below and b far above the draws of q; eq. 14 is 0 at infinite alpha."""
    ratio = q.loc.square() / q.scale.square()
    log_alpha = -ratio.clamp(min=torch.finfo(ratio.dtype).tiny).log()
    dropped = _K1 * torch.sigmoid(-_K2 - _K3 * log_alpha) + 0.5 * torch.log1p(ratio)
    divergence: Tensor = dropped + (p.high / p.low).log().log() + _AT_ZERO
    return divergence
