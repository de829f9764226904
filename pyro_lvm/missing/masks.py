"""Which entries of a table are missing: at random, by what is observed, by their own value.

Every function makes a bool mask of the shape of ``x``, True = observed, from a seed of its own;
the global random state stays as it was. An entry that is NaN is never marked as observed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, PyroLVMError, explain

__all__ = ["check_rate", "mar", "mcar", "mnar", "uniform"]

_HALVINGS = 60  # of an interval for an intercept: to the last bit of float64
_REACH = 100.0  # standard deviations that an intercept may shift a column


def mcar(x: Tensor, rate: float = 0.5, *, seed: int = 0) -> Tensor:
    """Missing completely at random: each entry is missing with probability ``rate``.

    Args:
        x: data ``(B, *)``.
        rate: expected share of missing entries, between 0 and 1.
        seed: of the mask.

    Returns:
        A bool mask of the shape of ``x``, True = observed.

    Raises:
        PyroLVMError: a rate outside (0, 1).

    References:
        Rubin (1976), *Inference and missing data*, Biometrika 63(3), for all three mechanisms.

    Example:
        >>> mcar(torch.zeros(1000, 3), rate=0.2).float().mean()
        tensor(0.8003)
    """
    check_rate(rate)
    return (uniform(x.shape, x, seed) >= rate) & ~x.isnan()


def mar(x: Tensor, drivers: Sequence[int], rate: float = 0.5, *, seed: int = 0) -> Tensor:
    r"""Missing at random: columns are missing by a logistic model of those always observed.

    .. math:: P(m_{ij} \mid x) = \sigma(w_j^\top \tilde x_{i, \mathrm{drivers}} + b_j)

    with standardised :math:`\tilde x`, Normal weights of unit length in expectation, and
    :math:`b_j` such that the probabilities have mean ``rate`` in every column.

    Args:
        x: a table ``(B, D)``.
        drivers: numbers of the columns that are always observed and decide on the others.
        rate: expected share of missing entries of every other column.
        seed: of the weights and the mask.

    Returns:
        A bool mask ``(B, D)``, True = observed.

    Raises:
        DataError: not a table, or a driver with NaN.
        PyroLVMError: a rate outside (0, 1), or no drivers.

    Example:
        >>> x = torch.randn(1000, 3)
        >>> mar(x, drivers=[0], rate=0.2).float().mean(0)
        tensor([1.0000, 0.7970, 0.7940])
    """
    check_rate(rate)
    _check_drivers(x, drivers)
    known = _standardised(x[:, list(drivers)])
    weights = _normal((len(drivers), x.shape[1]), x, seed) / len(drivers) ** 0.5
    missing = _missing_by(known @ weights, rate, seed + 1)
    missing[:, list(drivers)] = False
    return ~missing & ~x.isnan()


def mnar(x: Tensor, rate: float = 0.5, *, slope: float = 2.0, seed: int = 0) -> Tensor:
    r"""Missing not at random, by self-masking: an entry is missing by its own value.

    .. math:: P(m_{ij} \mid x) = \sigma(s \tilde x_{ij} + b_j)

    with standardised :math:`\tilde x` and :math:`b_j` such that the probabilities have mean
    ``rate`` in every column.

    Args:
        x: a table ``(B, D)``.
        rate: expected share of missing entries of every column.
        slope: s, in log-odds a standard deviation; above 0 large values go missing, below 0
            small ones.
        seed: of the mask.

    Returns:
        A bool mask ``(B, D)``, True = observed.

    Raises:
        DataError: not a table.
        PyroLVMError: a rate outside (0, 1).

    References:
        Ipsen, Mattei, Frellsen (2021), *not-MIWAE: deep generative modelling with missing not at
        random data*, arXiv:2006.12871.

    Example:
        >>> x = torch.randn(1000, 1)
        >>> observed = mnar(x, rate=0.5)
        >>> bool(x[observed].mean() < -0.3)
        True
    """
    check_rate(rate)
    _check_table(x)
    return ~_missing_by(slope * _standardised(x), rate, seed) & ~x.isnan()


def uniform(shape: Sequence[int], like: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1) by ``seed``, the same for every dtype and device of ``like``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(like.device)


def _normal(shape: Sequence[int], like: Tensor, seed: int) -> Tensor:
    drawn: Tensor = torch.special.ndtri(uniform(shape, like, seed))
    return drawn.to(like)


def check_rate(rate: float) -> None:
    """Raise :class:`PyroLVMError` unless ``rate`` is between 0 and 1."""
    if not 0 < rate < 1:
        hint = "Pass the share of missing entries, such as rate=0.5."
        raise PyroLVMError(explain("rate", "a number between 0 and 1", repr(rate), hint))


def _missing_by(logits: Tensor, rate: float, seed: int) -> Tensor:
    """Draws with log-odds ``logits`` plus an intercept a column that gives ``rate``."""
    low = logits.new_full(logits.shape[1:], -_REACH)
    high = -low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = torch.sigmoid(logits + middle).mean(0) > rate
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return uniform(logits.shape, logits, seed) < torch.sigmoid(logits + low)


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1 over their observed entries; 0 where unobserved."""
    mean = x.nanmean(0)
    scale = (x - mean).square().nanmean(0).sqrt()
    return ((x - mean) / scale).nan_to_num(0.0)


def _check_table(x: Tensor) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        found = f"{x.dtype} of shape {tuple(x.shape)}"
        hint = "Pass one row a datum; x.flatten(1) makes rows of pictures."
        raise DataError(explain("x", "floating numbers of shape (rows, columns)", found, hint))


def _check_drivers(x: Tensor, drivers: Sequence[int]) -> None:
    _check_table(x)
    if not drivers:
        hint = "Name columns that are always observed, such as drivers=[0]."
        raise PyroLVMError(explain("drivers", "at least one column", "none", hint))
    holes = [d for d in drivers if bool(x[:, d].isnan().any())]
    if holes:
        hint = "Choose complete columns."
        raise DataError(explain("drivers", "columns without NaN", f"NaN in {holes}", hint))
