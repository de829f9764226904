"""How well latents found by a model match true ones, whatever their order."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["mean_correlation"]


def mean_correlation(found: Tensor, true: Tensor) -> Tensor:
    """Mean absolute correlation of latents with the true ones that they are matched to (MCC).

    Each is matched with one other, so that the sum of the absolute Pearson correlations is
    largest. 1 if they are the same up to order, sign, shift and scale. Report that of the data
    themselves beside it, which need not be low.

    Args:
        found: ``(N, features)``, such as the means of a posterior.
        true: ``(N, features)``; if the numbers of features differ, the smaller one counts.

    Returns:
        A scalar from 0 to 1.

    Raises:
        DataError: other shapes, or fewer than 2 rows.

    References:
        Khemakhem, Kingma, Monti, Hyvärinen (2020), *Variational autoencoders and nonlinear
        ICA: a unifying framework*, arXiv:1907.04809, section 5.

    Example:
        >>> z = torch.randn(100, 3)
        >>> mean_correlation(-2 * z[:, [2, 0, 1]] + 1, z).round(decimals=4)
        tensor(1.)
    """
    if found.dim() != 2 or true.dim() != 2 or len(found) != len(true) or len(true) < 2:
        expected = "two tensors (N, features) with N of at least 2"
        shapes = f"shapes {tuple(found.shape)} and {tuple(true.shape)}"
        hint = "Pass one row a datum, as in posterior_draws.mean(0)."
        raise DataError(explain("found and true", expected, shapes, hint))
    correlation = (_standard(found).T @ _standard(true) / len(true)).abs()
    rows, columns = linear_sum_assignment(-correlation.detach().cpu().numpy())
    return correlation[rows, columns].mean()


def _standard(values: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1; a constant one becomes 0, correlated with nothing."""
    centred = values - values.mean(0)
    deviation = centred.square().mean(0).sqrt()
    return torch.where(deviation > 0, centred / deviation, 0.0)
