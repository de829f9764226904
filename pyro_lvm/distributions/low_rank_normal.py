"""A Normal of white noise and a few random columns: traces that drift slowly."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyro_lvm.distributions.linear_gaussian_chain import full_precision
from pyro_lvm.errors import ProgramError, explain

__all__ = ["LowRankNormal"]

_NO_SIZE = torch.Size()


class LowRankNormal(TorchDistribution):
    r"""White noise about a mean, plus columns with standard Normal weights.

    .. math:: x = m + U w + \sigma \epsilon, \quad w \sim N(0, I_R), \; \epsilon \sim N(0, I_T)

    Event shape ``(T,)``; the weights are integrated out exactly. Entries that are not
    ``observed`` are left out, whatever their value: the density is that of the others.

    One Cholesky factor, of size R, for each row of ``columns`` and ``scale``. It does not depend
    on ``loc``, so dims that only ``loc`` has (particles) only add products. With V = U /
    sigma, r = (x - m) / sigma and the posterior mean :math:`w^* = (I + V^\top V)^{-1} V^\top r`,

    .. math:: -2 \log p(x) = |r - V w^*|^2 + |w^*|^2 + \log \det (I + V^\top V)
        + \textstyle\sum_t \log 2 \pi \sigma_t^2

    (Woodbury's identity and the determinant lemma, written as a sum of squares: no large
    quadratic forms are subtracted, and an error in w* is of second order.)

    References:
        Woodbury (1950), *Inverting modified matrices*, Princeton Statistical Research Group 42.
        Bishop (2006), *Pattern recognition and machine learning*, section 2.3.3.

    Args:
        loc: m, ``(*left, *batch, T)``.
        scale: :math:`\sigma`, ``(*batch, T)`` or ``(*batch, 1)``.
        columns: U, ``(*batch, T, R)``.
        observed: ``(*batch, T)``, True = observed; all are if left out.

    Raises:
        ProgramError: columns of another length than ``loc``.

    Example:
        Two numbers that share a shift of scale 1; then the first of them alone.

        >>> loc, scale, shift = torch.zeros(2), torch.ones(1), torch.ones(2, 1)
        >>> LowRankNormal(loc, scale, shift).log_prob(torch.tensor([1.0, 1.0]))
        tensor(-2.7205)
        >>> alone = LowRankNormal(loc, scale, shift, observed=torch.tensor([True, False]))
        >>> alone.log_prob(torch.tensor([1.0, float("nan")]))
        tensor(-1.5155)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, columns: Tensor, observed: Tensor | None = None
    ) -> None:
        if columns.shape[-2] != loc.shape[-1]:
            expected, found = f"{loc.shape[-1]} rows", f"shape {tuple(columns.shape)}"
            hint = "Give columns the shape (*batch, T, R), for loc (*batch, T)."
            raise ProgramError(explain("columns", expected, found, hint))
        rows = torch.broadcast_shapes(scale.shape, columns.shape[:-1])
        self.loc = loc.expand(torch.broadcast_shapes(loc.shape, rows))
        self.scale = scale.expand(rows)
        self.columns = columns
        self.observed = observed
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LowRankNormal:
        loc = self.loc.expand(*batch_shape, *self.event_shape)
        return LowRankNormal(loc, self.scale, self.columns, self.observed)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch, T)
        shape = torch.Size(sample_shape) + self.batch_shape
        noise = self.loc.new_empty(shape + self.event_shape).normal_()
        weights = self.loc.new_empty(shape + self.columns.shape[-1:]).normal_()
        with full_precision(noise):
            return self.loc + self.scale * noise + _combine(self.columns, weights)

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch,)
        """Nats, of ``value`` of shape ``(*left, T)``."""
        residual, columns = self._standard(value)
        with full_precision(residual):
            weights, log_det = _posterior(columns, residual)
            left = residual - _combine(columns, weights)
        squares = left.square().sum(-1) + weights.square().sum(-1)
        volume = self._seen(log(2 * pi) + 2 * self.scale.log()).sum(-1)
        return -0.5 * (squares + log_det + volume)

    def denoised(self, value: Tensor) -> Tensor:  # (*batch, T)
        """The expectation of :math:`m + U w` given what was observed of ``value``."""
        residual, columns = self._standard(value)
        with full_precision(residual):
            weights, _ = _posterior(columns, residual)
            return self.loc + _combine(self.columns, weights)

    @property
    def mean(self) -> Tensor:  # (*batch, T)
        return self.loc

    @property
    def variance(self) -> Tensor:  # (*batch, T)
        return (self.scale.square() + self.columns.square().sum(-1)).expand_as(self.loc)

    def _standard(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and the columns in units of the noise, 0 where nothing was observed."""
        weight = self._seen(1 / self.scale)
        return self._seen(value - self.loc) * weight, self.columns * weight.unsqueeze(-1)

    def _seen(self, terms: Tensor) -> Tensor:
        """0 where nothing was observed, before NaN meets a product."""
        return terms if self.observed is None else torch.where(self.observed, terms, 0.0)


def _posterior(columns: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the weights, ``(*left, R)``, and log-determinant of their precision."""
    precision = torch.eye(columns.shape[-1]).to(columns) + columns.mT @ columns
    tril = torch.linalg.cholesky(precision)
    gain = torch.cholesky_solve(columns.mT, tril)  # (*batch, R, T)
    log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.einsum("...rt,...t->...r", gain, residual), log_det


def _combine(columns: Tensor, weights: Tensor) -> Tensor:  # (*left, T)
    return torch.einsum("...tr,...r->...t", columns, weights)
