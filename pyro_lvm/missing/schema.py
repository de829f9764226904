"""A pandas frame as one tensor with NaN, its likelihood, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from torch import Tensor

from pyro_lvm.distributions import MixedLikelihood
from pyro_lvm.errors import DataError, explain
from pyro_lvm.missing.columns import BinaryColumn, ClassColumn, Column, CountColumn, RealColumn
from pyro_lvm.nn import check_choice

__all__ = ["KINDS", "Schema", "is_binary"]

KINDS: dict[str, Callable[[Any], Column]] = {
    "binary": lambda series: BinaryColumn(series.name, series.dtype),
    "count": CountColumn.of,
    "nonnegative": lambda series: RealColumn.of(series, least=0.0),
    "positive": lambda series: RealColumn.of(series, log=True),
    "real": RealColumn.of,
}
"""From a series of numbers to its column."""


class Schema:
    r"""What the columns of a table are: their kinds, categories, means, scales and dispersions.

    Floating columns are real; integers from 0 are counts, other integers real; booleans, and
    numbers that are 0 or 1 throughout, are binary; categories are classes, or ordered ones. Means,
    scales and dispersions are those of observed cells. A row may be missing as a whole: its
    imputations are draws of the model's own.

    References:
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data
        using VAEs*, arXiv:1807.03653.

    Args:
        columns: from left to right.

    Attributes:
        columns: the same.

    Example:
        A model of a table, its guide, and the data for both:

        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.missing import Incomplete, TableEncoder
        >>> from pyro_lvm.models import VAE
        >>> frame = pd.DataFrame({"height": [1.6, None, 1.8], "visits": [3, 1, 0]})
        >>> frame["place"] = pd.Categorical(["sea", "town", None])
        >>> schema = Schema.of(frame)
        >>> x = schema.encode(frame)
        >>> x
        tensor([[-1.,  3.,  0.],
                [nan,  1.,  1.],
                [ 1.,  0., nan]])
        >>> model = Incomplete(VAE(len(schema), 2, (9,), schema.likelihood()))
        >>> guide = AmortizedNormal(TableEncoder(schema, (9,)), encoder_features=9,
        ...                         latent_features=2)
        >>> schema.fill(frame, x.nan_to_num(0.0))
           height  visits place
        0     1.6       3   sea
        1     1.7       1  town
        2     1.8       0   sea
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)

    @classmethod
    def of(cls, frame: Any, kinds: Mapping[Hashable, str] | None = None) -> Schema:
        """The schema of a frame.

        Args:
            frame: a ``pandas.DataFrame``, with NaN, None or NA anywhere.
            kinds: of columns of numbers whose dtype does not tell, by name: "real", "positive"
                (real, modelled by its logarithm), "nonnegative" (real, imputations below 0 become
                0), "count" or "binary".

        Raises:
            DataError: no rows or columns, a name twice, an unknown one in ``kinds``, a column
                without any observed cell, a constant real one, a dtype without a kind, or
                values that the kind cannot have.
            ProgramError: an unknown kind.
        """
        kinds = kinds or {}
        _check_frame(frame, kinds)
        return cls([_column(frame[name], kinds.get(name)) for name in frame])

    def __len__(self) -> int:
        """Number of columns, D."""
        return len(self.columns)

    @property
    def names(self) -> list[Hashable]:
        """Of the columns."""
        return [column.name for column in self.columns]

    def encode(self, frame: Any) -> Tensor:
        """The columns of ``frame`` as ``(N, D)`` in the default dtype, NaN where missing.

        Raises:
            DataError: a column that is not there, or a value that it cannot have, such as a
                category not seen before.
        """
        absent = [name for name in self.names if name not in frame]
        if absent:
            hint = "Pass a frame with the columns that the schema was made of."
            raise DataError(explain("frame", f"columns {self.names}", f"none of {absent}", hint))
        numbers = np.stack([column.numbers(frame[column.name]) for column in self.columns], 1)
        return torch.as_tensor(numbers).to(torch.get_default_dtype())

    def decode(self, x: Tensor, index: Any = None) -> Any:
        """``(N, D)`` numbers as a frame of the original dtypes; NaN become missing cells.

        Args:
            x: as :meth:`encode` makes them, or one of the imputations.
            index: of the frame, by default 0 to N - 1.

        Raises:
            DataError: another number of columns, or NaN in a dtype that cannot be missing.
        """
        if x.dim() != 2 or x.shape[1] != len(self):
            hint = "Decode one imputation at a time."
            found = f"shape {tuple(x.shape)}"
            raise DataError(explain("x", f"shape (rows, {len(self)})", found, hint))
        columns = zip(self.columns, x.double().cpu().numpy().T, strict=True)
        frame = pd.concat([column.restored(numbers) for column, numbers in columns], axis=1)
        return frame if index is None else frame.set_index(pd.Index(index))

    def fill(self, frame: Any, x: Tensor) -> Any:
        """``frame`` with its missing cells from ``x``; the others as they are, bit for bit.

        Args:
            frame: with the schema's columns.
            x: ``(N, D)`` numbers without NaN, such as one of the imputations of ``frame``.

        Raises:
            DataError: another number of columns.
        """
        complete = self.decode(x, frame.index)
        own = frame[self.names]
        return own.where(own.notna(), complete)

    def likelihood(self) -> MixedLikelihood:
        """Each column's own, for ``VAE(len(schema), likelihood=...)``."""
        groups = groupby(self.columns, key=lambda column: (type(column), *_family(column)))
        parts = [list(columns) for _, columns in groups]
        return MixedLikelihood([type(part[0]).likelihood(part) for part in parts])


def _family(column: Column) -> tuple[int, bool]:
    """What columns of one class need in common to share a likelihood."""
    return column.num_classes, bool(getattr(column.dtype, "ordered", False))


def _column(series: Any, kind: str | None) -> Column:
    if isinstance(series.dtype, pd.CategoricalDtype) and kind is None:
        return ClassColumn.of(series)
    is_numeric = pd.api.types.is_numeric_dtype(series.dtype)  # so are booleans
    if not is_numeric or pd.api.types.is_complex_dtype(series.dtype):
        hint = "Convert it, to numbers or by frame[name].astype('category'), or drop it."
        expected = "a float, integer, boolean or (without a kind) category dtype"
        raise DataError(explain(f"column {series.name!r}", expected, str(series.dtype), hint))
    kind = kind or _kind(series)
    check_choice("kinds", kind, KINDS)
    column = KINDS[kind](series)
    column.numbers(series)  # raises for values that the kind cannot have
    return column


def is_binary(series: Any) -> bool:
    """Whether a column without a kind is: booleans, or zeros and ones, as of right answers."""
    return pd.api.types.is_bool_dtype(series.dtype) or {*series.dropna().unique()} == {0, 1}


def _kind(series: Any) -> str:
    if is_binary(series):
        return "binary"
    is_count = pd.api.types.is_integer_dtype(series.dtype) and series.min() >= 0
    return "count" if is_count else "real"


def _check_frame(frame: Any, kinds: Mapping[Hashable, str]) -> None:
    names = list(frame.columns)
    if not frame.size:
        hint = "Check the file or filter it comes from."
        raise DataError(explain("frame", "rows and columns", f"shape {frame.shape}", hint))
    if len(set(names)) < len(names):
        hint = "Rename columns."
        raise DataError(explain("frame", "one column of each name", f"{names}", hint))
    if unknown := [name for name in kinds if name not in names]:
        hint = "Name columns of the frame."
        raise DataError(explain("kinds", f"columns among {names}", f"{unknown}", hint))
    if empty := [name for name in names if frame[name].isna().all()]:
        hint = "Drop columns that were never observed: nothing can be learned of them."
        raise DataError(explain(f"column {empty[0]!r}", "observed cells", "none", hint))
