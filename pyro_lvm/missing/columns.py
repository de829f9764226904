"""Columns of a pandas frame as columns of numbers with NaN, by kind, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch

from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    OrdinalLikelihood,
)
from pyro_lvm.distributions.negative_binomial import inverse_dispersion_of
from pyro_lvm.distributions.ordinal import class_shares
from pyro_lvm.errors import DataError, explain

__all__ = ["BinaryColumn", "ClassColumn", "Column", "CountColumn", "RealColumn"]

Numbers = Any  # a NumPy array (N,) of float64

_LEAST_SCALE = 1e-150
"""Squares of less vanish in float64."""


@dataclass(frozen=True)
class Column(ABC):
    """One column of a frame: what its numbers stand for.

    Attributes:
        name: in the frame.
        dtype: in the frame, which :meth:`restored` gives back.

    Example:
        Shares of a whole, as logits.

        >>> class ShareColumn(Column):
        ...     def numbers(self, series):
        ...         shares = series.to_numpy(float)
        ...         self.check(series, (shares > 0) & (shares < 1), "between 0 and 1")
        ...         return np.log(shares / (1 - shares))
        ...     def restored(self, numbers):
        ...         return pd.Series(1 / (1 + np.exp(-numbers)), name=self.name, dtype=self.dtype)
        ...     @classmethod
        ...     def likelihood(cls, columns):
        ...         return GaussianLikelihood(len(columns))
        >>> series = pd.Series([0.25, None, 0.5], name="fat")
        >>> column = ShareColumn(series.name, series.dtype)
        >>> column.restored(column.numbers(series)).tolist()
        [0.25, nan, 0.5]
    """

    name: Hashable
    dtype: Any

    @property
    def num_classes(self) -> int:
        """C, of class numbers; 0 of other numbers."""
        return 0

    @abstractmethod
    def numbers(self, series: Any) -> Numbers:
        """A series as float64, NaN where it is missing.

        Raises:
            DataError: a value that the column cannot have.
        """

    @abstractmethod
    def restored(self, numbers: Numbers) -> Any:
        """A series of the column's dtype from its numbers; rounded where there are classes."""

    @classmethod
    @abstractmethod
    def likelihood(cls, columns: Sequence[Self]) -> Likelihood:
        """Of neighbouring columns of this kind, and of as many classes."""

    def check(self, series: Any, good: Any, expected: str) -> None:
        """Raise :class:`DataError` where an observed value is not ``good``."""
        bad = series[series.notna() & ~good]
        if len(bad):
            value, row = bad.tolist()[0], bad.index.tolist()[0]
            found = f"{value!r} in row {row!r} ({len(bad)} of {len(series)} cells)"
            hint = "Correct the cells, set them to NA, or choose the column's kind by kinds=."
            raise DataError(explain(f"column {self.name!r}", expected, found, hint))


@dataclass(frozen=True)
class RealColumn(Column):
    """Real numbers, standardised; or positive ones, standardised after the logarithm.

    Attributes:
        mean: of the observed cells, of their logarithms if ``log``, and
        scale: their standard deviation.
        log: whether the numbers are logarithms; the likelihood is then log-Normal.
        least: that the column can have; imputations below, which a Normal makes, become it.

    Example:
        >>> series = pd.Series([1.0, 3.0, None], name="dose")
        >>> column = RealColumn.of(series)
        >>> numbers = column.numbers(series)
        >>> numbers, column.restored(numbers).tolist()
        (array([-1.,  1., nan]), [1.0, 3.0, nan])
    """

    mean: float
    scale: float
    log: bool = False
    least: float = -np.inf

    @classmethod
    def of(cls, series: Any, log: bool = False, least: float = -np.inf) -> RealColumn:
        """With the mean and scale of the observed cells.

        Raises:
            DataError: a constant column, infinite cells, ones below ``least``, under ``log`` ones
                not above 0, or so large or small ones that their variance is no number.
        """
        raw = cls(series.name, series.dtype, 0.0, 1.0, log, least).numbers(series)
        with np.errstate(all="ignore"):
            mean, scale = float(np.nanmean(raw)), float(np.nanstd(raw))
        _check_spread(series, raw, scale)
        return cls(series.name, series.dtype, mean, scale, log, least)

    def numbers(self, series: Any) -> Numbers:
        raw = _floats(series)
        self.check(series, np.isfinite(raw), "finite numbers")
        self.check(series, raw >= self.least, f"numbers from {self.least:g}")
        if self.log:
            self.check(series, raw > 0, "numbers above 0")
            raw = np.log(raw)
        return (raw - self.mean) / self.scale

    def restored(self, numbers: Numbers) -> Any:
        raw = numbers * self.scale + self.mean
        return _as_dtype(np.maximum(np.exp(raw) if self.log else raw, self.least), self)

    @classmethod
    def likelihood(cls, columns: Sequence[Self]) -> Likelihood:
        return GaussianLikelihood(len(columns))


@dataclass(frozen=True)
class CountColumn(Column):
    """Whole numbers from 0, as they are; negative binomial, as counts vary more than Poisson.

    Attributes:
        inverse_dispersion: of the observed cells by their moments, where the likelihood starts.

    Example:
        >>> series = pd.Series([0, 7, None], name="visits", dtype="Int64")
        >>> column = CountColumn.of(series)
        >>> column.inverse_dispersion
        1.4
        >>> column.numbers(series)
        array([ 0.,  7., nan])
        >>> column.restored(np.array([0.2, 6.9, 3.4])).tolist()
        [0, 7, 3]
    """

    inverse_dispersion: float = 1.0

    @classmethod
    def of(cls, series: Any) -> CountColumn:
        """With the dispersion of the observed cells.

        Raises:
            DataError: a cell that is no whole number from 0.
        """
        numbers = torch.from_numpy(cls(series.name, series.dtype).numbers(series))
        return cls(series.name, series.dtype, inverse_dispersion_of(numbers[:, None]).item())

    def numbers(self, series: Any) -> Numbers:
        raw = _floats(series)
        self.check(series, (raw >= 0) & (raw == np.floor(raw)), "whole numbers from 0")
        return raw

    def restored(self, numbers: Numbers) -> Any:
        return _as_dtype(np.maximum(np.round(numbers), 0.0), self)

    @classmethod
    def likelihood(cls, columns: Sequence[Self]) -> Likelihood:
        start = torch.tensor([column.inverse_dispersion for column in columns])
        return NegativeBinomialLikelihood(len(columns), start)


@dataclass(frozen=True)
class BinaryColumn(Column):
    """False and True as 0 and 1.

    Example:
        >>> series = pd.Series([True, None], name="fever", dtype="boolean")
        >>> BinaryColumn(series.name, series.dtype).numbers(series)
        array([ 1., nan])
    """

    def numbers(self, series: Any) -> Numbers:
        raw = _floats(series)
        self.check(series, (raw == 0) | (raw == 1), "0 or 1")
        return raw

    def restored(self, numbers: Numbers) -> Any:
        return _as_dtype(np.round(numbers), self)

    @classmethod
    def likelihood(cls, columns: Sequence[Self]) -> Likelihood:
        return BernoulliLikelihood(len(columns))


@dataclass(frozen=True)
class ClassColumn(Column):
    """Categories, by their number; the dtype holds them and whether they are ordered.

    Attributes:
        shares: of the categories in the observed cells, where the likelihood of ordered ones
            starts.

    Example:
        >>> series = pd.Series(["mild", "severe", None], name="pain", dtype="category")
        >>> column = ClassColumn.of(series)
        >>> column.numbers(series), column.num_classes
        (array([ 0.,  1., nan]), 2)
        >>> column.restored(np.array([1.0, 0.0])).tolist()
        ['severe', 'mild']
    """

    shares: tuple[float, ...] | None = None

    @classmethod
    def of(cls, series: Any) -> ClassColumn:
        """With the shares of the categories."""
        column = cls(series.name, series.dtype)
        numbers = torch.from_numpy(column.numbers(series))
        shares = class_shares(numbers[:, None], column.num_classes)
        return cls(series.name, series.dtype, tuple(shares[0].tolist()))

    @property
    def num_classes(self) -> int:
        return len(self.dtype.categories)

    def numbers(self, series: Any) -> Numbers:
        expected = f"one of {list(self.dtype.categories)}"
        self.check(series, series.isin(self.dtype.categories), expected)
        codes = series.astype(self.dtype).cat.codes.to_numpy().astype(np.float64)
        return np.where(codes < 0, np.nan, codes)

    def restored(self, numbers: Numbers) -> Any:
        codes = np.where(np.isnan(numbers), -1, np.round(numbers)).astype(np.int64)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=self.dtype), name=self.name)

    @classmethod
    def likelihood(cls, columns: Sequence[Self]) -> Likelihood:
        features, num_classes = len(columns), columns[0].num_classes
        if not columns[0].dtype.ordered or num_classes == 1:
            return CategoricalLikelihood(features, num_classes)
        shares = [column.shares or (1.0,) * num_classes for column in columns]
        return OrdinalLikelihood(features, num_classes, torch.tensor(shares))


def _check_spread(series: Any, raw: Numbers, scale: float) -> None:
    where, low, high = f"column {series.name!r}", np.nanmin(raw), np.nanmax(raw)
    if low == high:
        found = f"{series.dropna().tolist()[0]!r} in all cells"
        raise DataError(explain(where, "values that vary", found, "Drop constant columns."))
    if not _LEAST_SCALE <= scale < np.inf:
        expected = "a standard deviation that float64 can compute"
        hint = "Change the unit of the column."
        raise DataError(explain(where, expected, f"numbers from {low:g} to {high:g}", hint))


def _floats(series: Any) -> Numbers:
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _as_dtype(numbers: Numbers, column: Column) -> Any:
    """A series of the column's dtype: the nearest numbers that it has, NaN as NA."""
    series = pd.Series(numbers, name=column.name).clip(*_limits(column.dtype))
    if pd.api.types.is_float_dtype(column.dtype):
        return series.astype(column.dtype)
    if series.isna().any() and not pd.api.types.is_extension_array_dtype(column.dtype):
        hint = "Impute all entries first, or use 'Int64' or 'boolean' in the frame."
        where, found = f"column {column.name!r} of dtype {column.dtype}", "missing entries"
        raise DataError(explain(where, "a number in each row", found, hint))
    return series.round().astype("Int64").astype(column.dtype)


def _limits(dtype: Any) -> tuple[float, float]:
    """The least and greatest numbers of a dtype that float64 and Int64 have too."""
    if pd.api.types.is_bool_dtype(dtype):
        return 0.0, 1.0
    of = getattr(dtype, "numpy_dtype", dtype)
    info = np.finfo(of) if pd.api.types.is_float_dtype(dtype) else np.iinfo(of)
    most = np.nextafter(2.0**63, 0.0) if pd.api.types.is_integer_dtype(dtype) else np.inf
    return float(info.min), min(float(info.max), float(most))
