"""A user's table as numbers with NaN for a model, and completed tables of the user's kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.missing import Schema, with_categories

__all__ = ["TableCodec", "check_names"]


@dataclass(frozen=True)
class TableCodec:
    """How tables of one layout become numbers and come back.

    Columns of one value throughout are left out of the numbers, and filled with that value.

    Attributes:
        schema: of the columns that vary.
        constants: the value of each other column.

    Example:
        >>> frame = pd.DataFrame({"dose": [1.0, None, 3.0], "site": ["sea", None, "sea"]})
        >>> codec = TableCodec.of(frame)
        >>> x = codec.encode(frame)  # one place in all rows: nothing to learn
        >>> x
        tensor([[-1.],
                [nan],
                [ 1.]])
        >>> codec.complete(frame, x.nan_to_num(0.0))
           dose site
        0   1.0  sea
        1   2.0  sea
        2   3.0  sea
    """

    schema: Schema
    constants: Mapping[Hashable, Any]

    @classmethod
    def of(cls, table: Any, kinds: Mapping[Any, str] | None = None) -> TableCodec:
        """For tables like this frame or array of floats.

        Raises:
            DataError: no column varies, or as :meth:`Schema.of <pyro_lvm.missing.Schema.of>`.
        """
        frame = _frame(table)
        observed = {name: frame[name].dropna().unique() for name in frame}
        constants = {name: values[0] for name, values in observed.items() if len(values) == 1}
        varying = [name for name in frame.columns if name not in constants]
        if len(frame.columns) and not varying:
            found = f"{len(constants)} constant ones"
            hint = "There is nothing to learn: fill each column with its value."
            raise DataError(explain("table", "columns that vary", found, hint))
        kinds = {name: kind for name, kind in (kinds or {}).items() if name not in constants}
        return cls(Schema.of(frame[varying], kinds), constants)

    def encode(self, table: Any) -> Tensor:
        """``(N, D)`` numbers of the columns that vary, NaN where missing.

        Raises:
            DataError: as :meth:`Schema.encode <pyro_lvm.missing.Schema.encode>`.
        """
        return self.schema.encode(_frame(table))

    def complete(self, table: Any, x: Tensor) -> Any:
        """``table`` with its missing cells from ``x`` ``(N, D)``, and of its type and dtypes."""
        frame = _frame(table)
        filled = self.schema.fill(frame, x)
        for name, value in self.constants.items():
            filled[name] = frame[name].fillna(value)
        filled = filled[list(frame.columns)]
        if not isinstance(table, pd.DataFrame):
            return filled.to_numpy(dtype=table.dtype)
        filled = filled.astype(dict(zip(table.columns, table.dtypes, strict=True)))
        return table.where(table.notna(), filled)


def check_names(frame: Any) -> None:
    """Raise :class:`DataError` for a frame in which a name comes twice."""
    names = list(frame.columns)
    if len(set(names)) < len(names):
        hint = "Rename columns."
        raise DataError(explain("frame", "one column of each name", f"{names}", hint))


def _frame(table: Any) -> Any:
    if isinstance(table, pd.DataFrame):
        return with_categories(table)
    return pd.DataFrame(np.asarray(table))
