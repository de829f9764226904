"""Columns of mean zero and variance one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_lvm.data.checks import check_data
from pyro_lvm.errors import DataError, explain

__all__ = ["standardize"]


def standardize(
    x: Tensor, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor, Tensor]:  # (N, D), (D,), (D,)
    """``((x - mean) / scale, mean, scale)``, by column.

    Args:
        x: ``(N, D)`` data; standardise held-out rows with the training rows' mean and scale.
        names: of the columns, for errors.

    Raises:
        DataError: not a matrix, no rows, NaN or infinite values, or constant columns, named.

    Example:
        >>> import torch
        >>> z, mean, scale = standardize(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
        >>> z, mean, scale
        (tensor([[-1., -1.],
                [ 1.,  1.]]), tensor([1., 3.]), tensor([1., 2.]))
    """
    if x.dim() != 2 or (names is not None and len(names) != x.shape[1]):
        found = f"shape {tuple(x.shape)}" + (f" and {len(names)} names" if names else "")
        hint = "Pass a matrix, one row a datum, and one name a column."
        raise DataError(explain("x", "shape (rows, columns)", found, hint))
    check_data(x, "x")
    if not x.is_floating_point():
        x = x.float()
    _check_varies(x, names)
    mean, scale = x.mean(0), x.std(0, correction=0)
    return (x - mean) / scale, mean, scale


def _check_varies(x: Tensor, names: Sequence[str] | None) -> None:
    constant = (x == x[0]).all(0).nonzero().flatten().tolist()
    if constant:
        shown = [repr(names[i]) if names else str(i) for i in constant]
        found = f"the same value in all {len(x)} rows of {', '.join(shown)}"
        raise DataError(
            explain("column " + shown[0], "values that vary", found, "Drop constant columns.")
        )
