"""EM for factor analysis with missing entries: the maximum-likelihood estimate, for reference.

The rows of one pattern of missing entries enter through their second moments alone, so that a step
costs as much for a million rows as for a hundred.

References:
    Rubin, Thayer (1982), *EM algorithms for ML factor analysis*, Psychometrika 47.
"""

from __future__ import annotations

from math import log, pi
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["Factors", "fit_by_em", "observed_log_likelihood"]


class Factors(NamedTuple):
    """x ~ N(mean, loading loading' + diag(variance)): ``(D,)``, ``(D, L)`` and ``(D,)``."""

    mean: Tensor
    loading: Tensor
    variance: Tensor

    def normal(self) -> dist.MultivariateNormal:
        """Its distribution of a row."""
        return dist.MultivariateNormal(
            self.mean, self.loading @ self.loading.T + self.variance.diag()
        )

    def scaled(self, loc: Tensor, scale: Tensor) -> Factors:
        """That of ``loc + scale * x``."""
        loading = self.loading * scale[:, None]
        return Factors(loc + scale * self.mean, loading, self.variance * scale**2)

    def detached(self) -> Factors:
        return Factors(*(part.detach() for part in self))


class _Patterns(NamedTuple):
    """Which entries are seen ``(P, D)``, and sums of (x, 1)(x, 1)' ``(P, D + 1, D + 1)``."""

    seen: Tensor
    moments: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Patterns:
        seen, which = (~x.isnan()).unique(dim=0, return_inverse=True)
        row = torch.cat([x.nan_to_num(0.0), torch.ones_like(x[:, :1])], 1)
        products = row[:, :, None] * row[:, None]
        moments = products.new_zeros(len(seen), *products.shape[1:]).index_add(0, which, products)
        return cls(seen.to(x), moments)


def fit_by_em(x: Tensor, num_factors: int, steps: int = 5000, tolerance: float = 1e-5) -> Factors:
    """Of rows ``(N, D)``, NaN where missing, until no parameter moves by ``tolerance``."""
    patterns = _Patterns.of(x)
    loc = x.nanmean(0)
    variance = (x - loc).square().nanmean(0)
    start = torch.randn(len(loc), num_factors, generator=torch.Generator().manual_seed(0))
    now = Factors(loc, 0.5 * start.to(x) * variance.sqrt()[:, None], variance)
    for _ in range(steps):
        last, now = now, _step(now, patterns)
        moved = max(((a - b).abs().max() for a, b in zip(now, last, strict=True)))
        if moved < tolerance:
            break
    return now


def observed_log_likelihood(factors: Factors, x: Tensor) -> float:
    """Mean over rows of log p of what is observed, nats."""
    seen, moments = _Patterns.of(x)
    both = seen[:, :, None] * seen[:, None]
    covariance = factors.loading @ factors.loading.T + factors.variance.diag()
    covariance = torch.where(both > 0, covariance, torch.eye(x.shape[1]).to(x))
    count, mean = moments[:, -1, -1], factors.mean * seen
    cross = moments[:, :-1, -1][:, :, None] * mean[:, None]
    centred = moments[:, :-1, :-1] - cross - cross.mT
    centred = centred + count[:, None, None] * mean[:, :, None] * mean[:, None]
    squares = (torch.linalg.inv(covariance) * centred).sum((-1, -2))
    constants = seen.sum(-1) * log(2 * pi) + torch.linalg.slogdet(covariance).logabsdet
    return (-0.5 * (count * constants + squares).sum() / len(x)).item()


def _step(now: Factors, patterns: _Patterns) -> Factors:
    """Expected moments of (z, 1) given what is seen, then a regression of each column on them."""
    seen, moments = patterns
    count = moments[:, -1, -1]
    scaled = seen[:, :, None] * now.loading / now.variance[:, None]
    size = now.loading.shape[1]
    covariance = torch.linalg.inv(torch.eye(size).to(scaled) + scaled.mT @ now.loading)
    gain = covariance @ scaled.mT  # (P, L, D)
    first = torch.cat([gain, -(gain @ now.mean)[..., None]], -1)
    one = torch.zeros_like(first[:, :1])
    one[..., -1] = 1.0
    to_latents = torch.cat([first, one], 1)  # of (x, 1), the mean of (z, 1)
    products = moments @ to_latents.mT  # (P, D + 1, L + 1)
    latents = to_latents @ products
    latents[:, :size, :size] += count[:, None, None] * covariance
    left = torch.einsum("pd,pab->dab", seen, latents)
    right = torch.einsum("pd,pda->da", seen, products[:, :-1])
    weights = torch.linalg.solve(left, right)  # (D, L + 1)
    squares = torch.einsum("pd,pdd->d", seen, moments[:, :-1, :-1])
    explained = torch.einsum("da,dab,db->d", weights, left, weights)
    variance = squares - 2 * (weights * right).sum(-1) + explained
    return Factors(weights[:, -1], weights[:, :-1], variance / torch.einsum("pd,p->d", seen, count))
