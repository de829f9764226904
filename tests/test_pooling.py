"""Rubin's rules: against numbers by hand, and as they are meant, by coverage."""

import numpy as np
import pytest
from explained import explained
from scipy.stats import t

from pyro_lvm.diagnostics import pool
from pyro_lvm.errors import PyroLVMError


def test_by_hand() -> None:
    pooled = pool([[1.0], [2.0], [3.0]], [[0.4], [0.5], [0.6]], complete_df=20)
    between, within = (1 + 1 / 3) * 1.0, 0.5
    total = between + within
    assert pooled.estimate == pytest.approx([2.0])
    assert pooled.standard_error == pytest.approx([total**0.5])
    share = between / total
    assert pooled.missing_share == pytest.approx([share])
    large, observed = 2 / share**2, 21 / 23 * 20 * (1 - share)
    degrees = large * observed / (large + observed)
    assert pooled.degrees_of_freedom == pytest.approx([degrees])
    low, high = pooled.interval(0.9)
    assert high - low == pytest.approx([2 * t.ppf(0.95, degrees) * total**0.5])


def test_nothing_missing() -> None:
    """Copies that agree: the analysis of one, with its own degrees of freedom or none."""
    pooled = pool([1.5, 1.5], [0.3, 0.3])
    assert (pooled.standard_error**2, pooled.missing_share) == pytest.approx((0.3, 0.0))
    assert np.isinf(pooled.degrees_of_freedom)
    finite = pool([1.5, 1.5], [0.3, 0.3], complete_df=50).degrees_of_freedom
    assert finite == pytest.approx(51 / 53 * 50)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Means of 30 numbers, half of them missing and drawn from their exact posterior."""
    random, runs, observed, missing, copies = np.random.RandomState(0), 4000, 15, 15, 10
    known = random.randn(runs, observed)
    mean, variance = known.mean(1), known.var(1, ddof=1)
    drawn_variance = (observed - 1) * variance / random.chisquare(observed - 1, (copies, runs))
    drawn_mean = mean + random.randn(copies, runs) * np.sqrt(drawn_variance / observed)
    noise = random.randn(copies, runs, missing) * np.sqrt(drawn_variance)[..., None]
    filled = np.concatenate([np.broadcast_to(known, (copies, *known.shape)), noise], 2)
    filled[..., observed:] += drawn_mean[..., None]
    size = observed + missing
    pooled = pool(filled.mean(2), filled.var(2, ddof=1) / size, complete_df=size - 1)
    low, high = pooled.interval(0.9)
    covered = ((low <= 0) & (high >= 0)).mean()
    error = (0.9 * 0.1 / runs) ** 0.5
    assert abs(covered - 0.9) < 4 * error
    ignored = np.abs(filled[0].mean(1)) < 1.7 * filled[0].std(1) / size**0.5
    assert ignored.mean() < 0.9 - 10 * error, "one completed table is not enough"


def test_mistakes() -> None:
    with explained(PyroLVMError, "estimates", "two or more", "shapes (1,) and (1,)", "completed"):
        pool([1.0], [1.0])
    with explained(PyroLVMError, "level", "between 0 and 1", "95", "level=0.95"):
        pool([1.0, 2.0], [1.0, 1.0]).interval(95)
