"""Statistics of importance weights, per datum: effective size, Pareto k-hat, smoothing."""

from __future__ import annotations

from math import ceil, inf, log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "effective_sample_size",
    "khat_of_tail",
    "log_mean_exp",
    "logsumexp_of_others",
    "pareto_khat",
    "pareto_smooth",
    "tail_length",
]

_MIN_TAIL = 5
_ROUNDING = 1e-5  # nats: weights that differ by less are equal


def log_mean_exp(log_weights: Tensor, dim: int = 0) -> Tensor:
    r""":math:`\log \tfrac1K \sum_k w_k` in nats, over ``dim``, without overflow.

    Example:
        >>> log_mean_exp(torch.tensor([1000.0, 1000.0]))
        tensor(1000.)
    """
    return torch.logsumexp(log_weights, dim) - log(log_weights.shape[dim])


def logsumexp_of_others(log_weights: Tensor) -> Tensor:
    r""":math:`\log \sum_{j \ne k} w_j` for each k, ``(K, *batch)`` nats, in memory of order K.

    The sums before k and after it are added; nothing is subtracted, so that no digit is lost.

    Example:
        >>> logsumexp_of_others(torch.tensor([1.0, 2.0, 3.0]).log()).exp()
        tensor([5., 4., 3.])
    """
    none = torch.full_like(log_weights[:1], -inf)
    before = log_weights.logcumsumexp(0)
    after = log_weights.flip(0).logcumsumexp(0).flip(0)
    return torch.logaddexp(torch.cat([none, before[:-1]]), torch.cat([after[1:], none]))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Kish's effective number of draws, :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, in draws.

    K where the weights are equal, 1 where one weight is all. It can look well while rare
    large weights have not been drawn yet; :func:`pareto_khat` tells.

    Args:
        log_weights: ``(K, *batch)`` nats, ``-inf`` for a weight of zero.

    Returns:
        ``(*batch,)``; NaN where every weight is zero.

    References:
        Kish (1965), *Survey Sampling*.

    Example:
        >>> effective_sample_size(torch.tensor([[0.0, 0.0], [0.0, -float("inf")]]))
        tensor([2., 1.])
    """
    return 1 / torch.softmax(log_weights, 0).square().sum(0)


def pareto_khat(log_weights: Tensor) -> Tensor:
    r"""Shape :math:`\hat k` of the weights' upper tail, per datum.

    The weights have about :math:`1 / \hat k` finite moments: up to 0.5 their variance is
    finite, up to 0.7 importance sampling is usable at practical K, above it neither the
    guide's weighted draws nor their effective sample size can be trusted.

    Args:
        log_weights: ``(K, *batch)`` nats, ``-inf`` for a weight of zero.

    Returns:
        ``(*batch,)``, as ArviZ's ``psislw`` gives (0.23; its 1.x takes minus this argument).
        ``inf`` where the tail has fewer than 5 draws: K <= 20, or that few weights above
        the cut. 0 where nothing exceeds the cut because the largest weights are all equal up
        to rounding, as with an exact posterior: no tail to fit (ArviZ gives ``inf`` or raises).
        NaN where every weight is zero, or one is NaN or infinite.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), *Pareto smoothed importance sampling*,
        arXiv:1507.02646; fit by Zhang and Stephens (2009), *A new and efficient estimation
        method for the generalized Pareto distribution*, Technometrics 51(3).

    Example:
        Weights u ** -0.5 of uniform u have k = 0.5.

        >>> u = (torch.arange(1000.0) + 0.5) / 1000
        >>> round(pareto_khat(-0.5 * u.log()).item(), 1)
        0.5
    """
    num_kept = min(tail_length(len(log_weights)) + 1, len(log_weights))
    return khat_of_tail(log_weights.topk(num_kept, dim=0).values)


def pareto_smooth(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Replace the largest weights by order statistics of their fitted tail.

    The tail's M weights become quantiles of the generalised Pareto fit, none above the
    largest raw weight. Weights whose tail cannot be fitted are left as they are.

    Args:
        log_weights: ``(K, *batch)`` nats.

    Returns:
        Smoothed log-weights ``(K, *batch)``, not normalised, and k-hat ``(*batch,)``.

    References:
        Vehtari et al. (2024), arXiv:1507.02646, section 3.

    Example:
        >>> log_weights = torch.linspace(-3, 3, 100)
        >>> smoothed, khat = pareto_smooth(log_weights)
        >>> bool((smoothed <= 3).all()), torch.equal(smoothed[:50], log_weights[:50])
        (True, True)
    """
    ordered, order = _at_least_float(log_weights).sort(dim=0, descending=True)
    num_tail = tail_length(len(ordered))
    if num_tail < _MIN_TAIL:
        return log_weights, khat_of_tail(ordered[: num_tail + 1])
    fit = _fit_tail(ordered[: num_tail + 1])
    ordered[:num_tail] = _smoothed_tail(fit, ordered[:num_tail])
    return torch.empty_like(ordered).scatter_(0, order, ordered), fit.khat


def tail_length(num_samples: int) -> int:
    """How many of the largest of ``num_samples`` weights make the tail: min(K/5, 3 sqrt K)."""
    return ceil(min(num_samples / 5, 3 * sqrt(num_samples)))


def khat_of_tail(largest: Tensor) -> Tensor:
    """:func:`pareto_khat` from the largest weights alone, so that the rest need not be kept.

    Args:
        largest: the ``tail_length(K) + 1`` largest log-weights, descending,
            ``(M + 1, *batch)`` nats; the last is the cut.
    """
    largest = _at_least_float(largest)
    if len(largest) <= _MIN_TAIL:
        unknown = torch.full_like(largest[0], inf)
        return torch.where(largest[0].isfinite(), unknown, torch.nan)
    return _fit_tail(largest).khat


class _Tail(NamedTuple):
    khat: Tensor  # (*batch,)
    sigma: Tensor  # (*batch,), scale of the fit
    num_above: Tensor  # (*batch,), draws above the cut
    cut: Tensor  # (*batch,), log of the cut relative to the largest weight


@torch.no_grad()
def _fit_tail(largest: Tensor) -> _Tail:  # (M + 1, *batch), descending
    relative = largest - largest[0]
    cut = relative[-1].clamp(min=log(torch.finfo(relative.dtype).tiny))
    above = relative[:-1] > cut
    excess = torch.expm1(relative[:-1] - cut) * cut.exp()
    count = above.sum(0)
    k, sigma = _fit_pareto(torch.where(above, excess, 0.0), count)
    k = torch.where(count < _MIN_TAIL, inf, k)
    k = torch.where((count == 0) | (cut > -_ROUNDING), 0.0, k)
    return _Tail(torch.where(largest[0].isfinite(), k, torch.nan), sigma, count, cut)


def _fit_pareto(excess: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Zhang and Stephens' posterior mean of (k, sigma), with PSIS's prior of k around 0.5.

    ``excess`` is ``(M, *batch)``, descending, zero from ``count`` on: zeros add nothing.
    """

    def shape(b: Tensor) -> Tensor:
        return torch.log1p(-b * excess).sum(0) / count

    root = count.to(excess.dtype).sqrt().floor() + 30
    quartile = (count - (count / 4 + 0.5).long()).clamp(min=0)
    first_quartile = excess.gather(0, quartile[None])[0]
    points = torch.arange(30 + int(len(excess) ** 0.5), device=excess.device) + 0.5
    grid = [
        (1 - (root / i).sqrt()) / (3 * first_quartile) + 1 / excess[0]
        for i in points.to(excess.dtype)
    ]
    ks = torch.stack([shape(b) for b in grid])  # a loop bounds the memory: (M, *batch)
    bs = torch.stack(grid)
    log_likelihood = count * ((-bs / ks).log() - ks - 1)
    beyond = points.reshape(-1, *[1] * count.dim()) > root
    weights = torch.softmax(torch.where(beyond, -inf, log_likelihood), 0)
    keep = weights >= 10 * torch.finfo(weights.dtype).eps
    weights = torch.where(keep, weights, 0.0)
    b = torch.where(keep, weights * bs, 0.0).sum(0) / weights.sum(0)
    k = shape(b)
    return (count * k + 5) / (count + 10), -k / b


def _smoothed_tail(fit: _Tail, tail: Tensor) -> Tensor:  # (M, *batch), descending
    rank = torch.arange(len(tail), device=tail.device).reshape(-1, *[1] * fit.num_above.dim())
    p = ((fit.num_above - rank).to(tail.dtype) - 0.5) / fit.num_above
    exponential = -torch.log1p(-p)
    flat = fit.khat.abs() < torch.finfo(tail.dtype).eps
    scaled = torch.where(flat, exponential, torch.expm1(fit.khat * exponential) / fit.khat)
    smoothed = torch.log(fit.sigma * scaled + fit.cut.exp()).clamp(max=0.0) + tail[0]
    fitted = (fit.num_above >= _MIN_TAIL) & fit.khat.isfinite()
    return torch.where(fitted & (rank < fit.num_above), smoothed, tail)


def _at_least_float(log_weights: Tensor) -> Tensor:
    half = log_weights.dtype in (torch.float16, torch.bfloat16)
    return log_weights.float() if half else log_weights
