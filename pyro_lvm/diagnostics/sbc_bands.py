r"""How far counts of uniform variables below fixed points may stray, at all points at once.

Of N independent uniform variables :math:`n_t \sim \mathrm{Binomial}(N, p_t)` lie below the
point :math:`p_t`. A count is as odd as its two-sided binomial tail, and a whole curve as the
oddest of its counts. How odd the oddest may be by chance is found exactly: as increments of
the curve are those of a Poisson process of which the total is known, the probability of a curve
that stays between two others is a chain of convolutions.

References:
    Säilynoja, Bürkner, Vehtari (2022), *Graphical test for discrete uniformity and its
    applications in goodness of fit evaluation and multiple sample comparison*,
    arXiv:2103.10522, section 2, for the test.
    Moscovich, Nadler (2017), *Fast calculation of boundary crossing probabilities for Poisson
    processes*, arXiv:1503.04363, for the Poisson increments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr, bdtrc, gammaln, xlogy  # type: ignore[import-untyped]
from torch import Tensor

__all__ = ["simultaneous_band", "uniformity_p_values"]

_NUM_BISECTIONS = 20
_ROUNDING = 1e-9  # tails that differ by less are equal, as those on both sides are


def uniformity_p_values(counts: Tensor, points: Sequence[float], total: int) -> Tensor:  # (m,)
    """How often N uniform variables have a curve as odd as the one counted; exact.

    Args:
        counts: ``(T, m)`` how many of N lie below each point, for m curves.
        points: T increasing numbers between 0 and 1.
        total: N.

    Returns:
        ``(m,)``. The counts are whole, so that chances of a p-value below 0.05 are at most 0.05.

    Example:
        One variable, one point in the middle: both outcomes are as likely.

        >>> uniformity_p_values(torch.tensor([[0, 1]]), [0.5], total=1)
        tensor([1., 1.], dtype=torch.float64)
        >>> uniformity_p_values(torch.tensor([[4, 5]]), [0.5], total=8)  # 163 / 256 and all
        tensor([1.0000, 0.7266], dtype=torch.float64)
    """
    oddness = _oddness(points, total)
    found = np.take_along_axis(oddness, counts.cpu().numpy(), axis=1).min(0)
    levels, where = np.unique(found, return_inverse=True)
    limits = levels * (1 + _ROUNDING)
    chances = np.array([1 - _chance_inside(oddness > limit, points, total) for limit in limits])
    return torch.from_numpy(chances[where].clip(0.0, 1.0))


def simultaneous_band(
    points: Sequence[float], total: int, level: float = 0.95
) -> tuple[Tensor, Tensor]:  # (T,), (T,)
    """The lowest and highest shares between which whole curves stay with that probability.

    Args:
        points: T increasing numbers between 0 and 1.
        total: N, uniform variables.
        level: at least this share of curves stays within the band, at all points at once.

    Example:
        >>> low, high = simultaneous_band([0.25, 0.5, 0.75], total=100)
        >>> low, high
        (tensor([0.1500, 0.3900, 0.6500], dtype=torch.float64),
         tensor([0.3500, 0.6100, 0.8500], dtype=torch.float64))
    """
    oddness = _oddness(points, total)
    low, high = 0.0, 1.0
    for _ in range(_NUM_BISECTIONS):
        middle = (low + high) / 2
        enough = _chance_inside(oddness > middle, points, total) >= level
        low, high = (middle, high) if enough else (low, middle)
    first, last = _ends(oddness > low)
    return torch.from_numpy(first / total), torch.from_numpy(last / total)


def _oddness(points: Sequence[float], total: int) -> Any:  # (T, N + 1)
    """Two-sided binomial tail of each count at each point; small is odd."""
    counts, chance = np.arange(total + 1), np.asarray(points)[:, None]
    below = bdtr(counts, total, chance)
    above = np.concatenate([np.ones_like(chance), bdtrc(counts[:-1], total, chance)], axis=1)
    return 2 * np.minimum(below, above)


def _chance_inside(allowed: Any, points: Sequence[float], total: int) -> float:
    """That the counts of N uniform variables are ``allowed`` ``(T, N + 1)`` at all points."""
    if not allowed.any(1).all():
        return 0.0
    first, last = (np.append(ends, total) for ends in _ends(allowed))
    start, chances = 0, np.ones(1)  # of the counts start, start + 1, ... so far
    for low, high, step in zip(first, last, np.diff([0.0, *points, 1.0]), strict=True):
        increments = _poisson(total * step, high - start)
        chances = np.convolve(chances, increments)[low - start : high - start + 1]
        start = low
    return float(chances[0] / _poisson(total, total)[-1])


def _ends(allowed: Any) -> tuple[Any, Any]:
    """The least and the largest allowed count at each point, all between being allowed."""
    return allowed.argmax(1), allowed.shape[1] - 1 - allowed[:, ::-1].argmax(1)


def _poisson(mean: float, largest: int) -> Any:
    counts = np.arange(largest + 1)
    return np.exp(xlogy(counts, mean) - mean - gammaln(counts + 1))
