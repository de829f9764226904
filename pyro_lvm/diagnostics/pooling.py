"""One result from the analyses of several completed tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["Pooled", "pool"]

Numbers = Any  # a NumPy array of float64


@dataclass(frozen=True)
class Pooled:
    """An estimate whose uncertainty counts what was missing.

    Attributes:
        estimate: ``(*shape,)``, the mean over completed tables.
        standard_error: ``(*shape,)``.
        degrees_of_freedom: ``(*shape,)``, of Student's t.
        missing_share: ``(*shape,)``, of the variance, that is due to what is missing.

    Example:
        >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
        >>> lower, upper = pooled.interval(0.9)
        >>> round(float(lower), 2), round(float(upper), 2), round(float(pooled.missing_share), 2)
        (-0.94, 4.94, 0.73)
    """

    estimate: Numbers
    standard_error: Numbers
    degrees_of_freedom: Numbers
    missing_share: Numbers

    def interval(self, level: float = 0.95) -> tuple[Numbers, Numbers]:
        """Lower and upper ends of the confidence interval, ``(*shape,)`` each.

        Raises:
            PyroLVMError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            hint = "Pass level=0.95."
            raise PyroLVMError(explain("level", "a number between 0 and 1", repr(level), hint))
        from scipy.stats import t  # type: ignore[import-untyped] # here, as it is slow to import

        reach = t.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return self.estimate - reach, self.estimate + reach


def pool(estimates: ArrayLike, variances: ArrayLike, complete_df: float = float("inf")) -> Pooled:
    r"""Rubin's rules: combine the same analysis of M completed tables.

    .. math:: T = \bar U + (1 + 1/M)\, B

    for the mean :math:`\bar U` of the analyses' squared standard errors and the variance B of
    their estimates.

    References:
        Rubin (1987), *Multiple imputation for nonresponse in surveys*, section 3.1.
        Barnard, Rubin (1999), *Small-sample degrees of freedom with multiple imputation*,
        Biometrika 86(4), for the degrees of freedom.

    Args:
        estimates: ``(M, *shape)``.
        variances: ``(M, *shape)``, squared standard errors.
        complete_df: degrees of freedom of the analysis if nothing were missing, such as rows less
            coefficients of a regression.

    Raises:
        PyroLVMError: fewer than two analyses, or shapes that differ.

    Example:
        >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
        >>> float(pooled.estimate), round(float(pooled.standard_error), 4)
        (2.0, 1.354)
    """
    values, squares = np.asarray(estimates, float), np.asarray(variances, float)
    if len(values) < 2 or values.shape != squares.shape:
        found = f"shapes {values.shape} and {squares.shape}"
        hint = "Analyse each of the completed tables in the same way."
        raise PyroLVMError(explain("estimates", "two or more with their variances", found, hint))
    count = len(values)
    between = (1 + 1 / count) * values.var(0, ddof=1)
    total = squares.mean(0) + between
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return Pooled(values.mean(0), np.sqrt(total), _degrees(share, count, complete_df), share)


def _degrees(share: Numbers, count: int, complete: float) -> Numbers:
    """Barnard and Rubin's, from the inverse of both parts: infinite ones count for nothing."""
    large_sample = share**2 / (count - 1)
    if np.isinf(complete):
        observed = np.zeros_like(share)
    else:
        left = np.maximum(1 - share, np.finfo(float).eps)
        observed = (complete + 3) / ((complete + 1) * complete * left)
    inverse = large_sample + observed
    return np.divide(1.0, inverse, out=np.full_like(share, np.inf), where=inverse > 0)
