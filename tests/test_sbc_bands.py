"""Simultaneous bands of an ECDF against enumeration, and their false alarms against chance."""

from itertools import product
from math import factorial

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_lvm.diagnostics.sbc_bands import simultaneous_band, uniformity_p_values


def outcomes(points: list[float], total: int) -> tuple[Tensor, np.ndarray]:
    """All counts below the points ``(T, outcomes)``, and the probability of each."""
    cells = np.diff([0.0, *points, 1.0])
    counts = [c for c in product(range(total + 1), repeat=len(cells)) if sum(c) == total]
    chances = [
        factorial(total) * np.prod([p**n / factorial(n) for p, n in zip(cells, c, strict=True)])
        for c in counts
    ]
    return torch.tensor(np.cumsum(counts, 1)[:, :-1].T), np.array(chances)


def oddness(counts: np.ndarray, points: list[float], total: int) -> np.ndarray:
    """Twice the smaller binomial tail, the least of all points; by sums of the mass function."""
    found = []
    for row, point in zip(counts, points, strict=True):
        k = np.arange(total + 1)
        choose = np.array([factorial(total) / factorial(i) / factorial(total - i) for i in k])
        mass = choose * point**k * (1 - point) ** (total - k)
        found.append([2 * min(mass[: n + 1].sum(), mass[n:].sum()) for n in row])
    return np.min(found, 0)


CASES = {
    "even": ([0.25, 0.5, 0.75], 6),
    "uneven": ([0.1, 0.15, 0.6, 0.95], 5),
    "one": ([0.3], 9),
}


@pytest.mark.parametrize(("points", "total"), CASES.values(), ids=CASES)
def test_p_values_are_those_of_enumeration(points, total) -> None:
    counts, chances = outcomes(points, total)
    odd = oddness(counts.numpy(force=True), points, total)
    exact = [chances[odd <= own * (1 + 1e-9)].sum() for own in odd]
    found = uniformity_p_values(counts, points, total)
    torch.testing.assert_close(found, torch.tensor(exact), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("points", "total"), CASES.values(), ids=CASES)
def test_curves_leave_the_band_as_often_as_they_may(points, total) -> None:
    """Never more than 0.2, and those that leave are those with p-values up to it."""
    counts, chances = outcomes(points, total)
    low, high = simultaneous_band(points, total, level=0.8)
    shares = counts / torch.tensor(float(total), dtype=torch.float64)
    leaves = ((shares < low[:, None]) | (shares > high[:, None])).any(0)
    assert chances[leaves.numpy(force=True)].sum() <= 0.2 + 1e-9
    assert torch.equal(leaves, uniformity_p_values(counts, points, total) <= 0.2 + 1e-9)


def test_false_alarms_at_the_size_of_use() -> None:
    """500 simulations of 49 draws, 1000 times: 0.05 of them, within 4 standard errors."""
    ranks = torch.randint(50, (500, 1000))
    counts = torch.stack([(ranks < limit).sum(0) for limit in range(1, 50)])
    points = [limit / 50 for limit in range(1, 50)]
    alarms = uniformity_p_values(counts, points, 500) < 0.05
    assert abs(alarms.double().mean() - 0.05) < 4 * (0.05 * 0.95 / 1000) ** 0.5


def test_hopeless_curves_have_p_values_of_zero() -> None:
    points = [limit / 100 for limit in range(1, 100)]
    assert uniformity_p_values(torch.zeros(99, 1, dtype=torch.long), points, 1000) < 1e-10
