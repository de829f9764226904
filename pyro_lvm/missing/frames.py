"""Frames of dtypes that a schema knows: from text files, and from columns of objects."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]

from pyro_lvm.errors import DataError, explain

__all__ = ["read_frame", "with_categories"]

_WORDS = {"true": True, "false": False}
_MOST = 2.0**63
"""Whole numbers from here on have no place in Int64."""
_MOSTLY = 0.5
"""Share of numbers above which the other cells of a column are mistakes, not categories."""


def read_frame(
    path: str | Path, *, missing: Sequence[str] = (), categories: Sequence[str] = ()
) -> Any:
    r"""A CSV file with a first row of names as a frame of numbers, booleans and categories.

    A column is of numbers if all its cells are, whole ones in dtype "Int64"; of booleans if all
    are "true" or "false"; else of categories, in the order of the alphabet. If more than half of
    the cells are numbers, the others are taken for mistakes.

    Args:
        path: of the file.
        missing: what stands for a missing cell, beside nothing, "NA", "NaN", "null" and the like.
        categories: columns of numbers that are the names of classes.

    Raises:
        DataError: no such file, no rows, another separator, a row longer than the first, a name
            twice, an unknown one in ``categories``, or text in a column of numbers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "people.csv"
        ...     _ = file.write_text("height,visits,place\n1.6,3,sea\n,1,town\n1.8,?,\n")
        ...     read_frame(file, missing=["?"])
           height  visits place
        0     1.6       3   sea
        1     NaN       1  town
        2     1.8    <NA>   NaN
    """
    path = Path(path)
    names = _names(path)
    try:
        text = pd.read_csv(
            path,
            names=names,
            header=0,
            index_col=False,
            dtype=str,
            na_values=list(missing),
            skipinitialspace=True,
            compression=None,
        )
    except (ValueError, UnicodeDecodeError) as error:  # pandas's own are ValueErrors
        hint = "Save the table as CSV in UTF-8, one row a line, as many cells as names."
        raise DataError(explain(str(path), "a table", str(error).strip(), hint)) from error
    if not len(text):
        raise _empty(path, "a first row of names and no other")
    if unknown := [name for name in categories if name not in names]:
        hint = "Name columns of the file."
        raise DataError(explain("categories", f"columns among {names}", f"{unknown}", hint))
    columns = {name: _typed(text[name].str.strip(), name in categories, path) for name in text}
    return pd.DataFrame(columns)


def with_categories(frame: Any) -> Any:
    """``frame`` with its columns of text or other objects as numbers, booleans or categories.

    Raises:
        DataError: numbers and text in one column.

    Example:
        >>> with_categories(pd.DataFrame({"a": ["sea", None], "b": [True, None]})).dtypes
        a    category
        b     boolean
        dtype: object
    """
    made = frame.copy(deep=False)
    for number, dtype in enumerate(frame.dtypes):
        if pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype):
            made.isetitem(number, _of_objects(frame.iloc[:, number]))
    return made


def _of_objects(series: Any) -> Any:
    observed, where = series.dropna(), f"column {series.name!r}"
    if observed.map(pd.api.types.is_bool).all():
        return series.astype("boolean")
    is_text = observed.map(lambda value: isinstance(value, str))
    if is_text.all():
        return series.astype("category")
    numbers = pd.to_numeric(series, errors="coerce")
    _check_numbers(series, numbers, where, "row")
    return _whole(series, where, "row") if observed.map(pd.api.types.is_integer).all() else numbers


def _typed(series: Any, is_category: bool, path: Path) -> Any:
    if is_category:
        return series.astype("category")
    words = series.str.lower().map(_WORDS)
    if words.notna().equals(series.notna()) and series.notna().any():
        return words.astype("boolean")
    numbers = pd.to_numeric(series, errors="coerce")
    if numbers.count() <= _MOSTLY * series.count() and series.count():
        return series.astype("category")
    in_file = series.set_axis(series.index + 2)  # lines are counted from 1, and the first is names
    where = f"{path}, column {series.name!r}"
    _check_numbers(in_file, numbers.set_axis(in_file.index), where)
    is_whole = series.dropna().str.fullmatch(r"[+-]?\d+").all() and series.notna().any()
    if not is_whole:
        return numbers.astype("float64")
    return _whole(in_file, where, "line").set_axis(series.index)


def _whole(series: Any, where: str, place: str) -> Any:
    """Digit by digit: float64, which missing cells would make of them, knows 15."""
    observed = series.dropna()
    bad = observed[observed.astype("float64").abs() >= _MOST]
    if len(bad):
        value, row = bad.tolist()[0], bad.index.tolist()[0]
        hint = "Make it a category if they are names, or write them with a decimal point."
        found = f"{value!r} in {place} {row!r} ({len(bad)} of {len(series)} cells)"
        raise DataError(explain(where, "whole numbers of less than 2**63", found, hint))
    cells = [pd.NA if pd.isna(cell) else int(cell) for cell in series]
    return pd.Series(pd.array(cells, dtype="Int64"), series.index, name=series.name)


def _check_numbers(series: Any, numbers: Any, where: str, place: str = "line") -> None:
    bad = series[series.notna() & numbers.isna()]
    if len(bad):
        value, row = bad.tolist()[0], bad.index.tolist()[0]
        found = f"{value!r} in {place} {row!r} ({len(bad)} of {len(series)} cells)"
        hint = "Correct the cells, tell by missing= what stands for none, or make it a category."
        raise DataError(explain(where, "numbers", found, hint))


def _names(path: Path) -> list[str]:
    """Of the columns, which pandas would rename where one comes twice."""
    if not path.is_file():
        hint = "Check the path."
        raise DataError(explain(str(path), "a CSV file", "no such file", hint))
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        longest = max(map(len, rows), default=0)
    if not names:
        raise _empty(path, "an empty file")
    if len(names) == 1 and (other := {";", "\t", "|"} & {*names[0]}):
        hint = "Save the table with commas between cells and points in numbers."
        found = f"{other.pop()!r} in the only name, {names[0]!r}"
        raise DataError(explain(str(path), "commas between names", found, hint))
    if longest > len(names):
        hint = "Name every column in the first row, and quote cells that hold a comma."
        found = f"a row of {longest} cells"
        raise DataError(explain(str(path), f"rows of {len(names)} cells", found, hint))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        hint = "Rename columns."
        raise DataError(explain(str(path), "one column of each name", f"two {twice}", hint))
    return names


def _empty(path: Path, found: str) -> DataError:
    hint = "Check how the file was saved."
    return DataError(explain(str(path), "a first row of names, then data", found, hint))
