"""Tables of traces in CSV and NumPy files, as they are written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_lvm.data.files import read_arrays
from pyro_lvm.errors import DataError, explain

__all__ = ["TraceTable", "read_table"]

_TIMES = ("time", "times", "time_s", "time (s)", "seconds", "t")


class TraceTable(NamedTuple):
    """What a file holds.

    Attributes:
        values: two dims, cells in columns or in rows.
        names: of the cells, if it has any.
        times: ``(frames,)`` s, if it has any.
        rate: Hz, if it says so.
        spikes: true counts, laid out as ``values``, if it has any.
    """

    values: Any
    names: Sequence[str] = ()
    times: Any = None
    rate: float | None = None
    spikes: Any = None


def read_table(file: Path) -> TraceTable:
    """The table of a ``.csv``, ``.npy`` or ``.npz`` file.

    Raises:
        DataError: it is not there, of another kind, or no table of numbers.
    """
    readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz}
    reader = readers.get(file.suffix.lower())
    if reader is None or not file.is_file():
        found = "another kind of file" if file.is_file() else "no such file"
        hint = "Save the traces as CSV, one row a frame and one column a cell."
        raise DataError(explain(str(file), f"a file in {', '.join(readers)}", found, hint))
    try:
        return reader(file)
    except DataError:
        raise
    except (OSError, EOFError, KeyError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        hint = "Save an array of numbers; in an npz file call it x."
        raise DataError(explain(str(file), "a table of numbers", found, hint)) from error


def _read_npy(file: Path) -> TraceTable:
    return TraceTable(_numbers(np.load(file, allow_pickle=False)))


def _read_npz(file: Path) -> TraceTable:
    arrays = read_arrays(file)
    return TraceTable(
        _numbers(arrays["x"]),
        [str(name) for name in arrays.get("names", ())],
        arrays.get("time"),
        float(arrays["rate"]) if "rate" in arrays else None,
        _numbers(arrays["spikes"]) if "spikes" in arrays else None,
    )


def _numbers(array: Any) -> Any:
    """The array in floats with two dims; one dim is one cell, in a column."""
    array = np.asarray(array, dtype=float)
    return array[:, None] if array.ndim == 1 else array


def _read_csv(file: Path) -> TraceTable:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows:
        raise ValueError("an empty file")
    names = [] if _is_frame(rows[0]) else [text.strip() for text in rows[0]]
    numbered = list(enumerate(rows, 1))[bool(names) :]
    values = [_floats(row, f"{file}, row {number}", len(rows[0])) for number, row in numbered]
    return _without_times(np.array(values), names)


def _without_times(values: Any, names: list[str]) -> TraceTable:
    columns = [i for i, name in enumerate(names) if name.lower() in _TIMES]
    if not columns:
        return TraceTable(values, names)
    cells = [i for i in range(len(names)) if i != columns[0]]
    return TraceTable(values[:, cells], [names[i] for i in cells], values[:, columns[0]])


def _is_frame(row: Sequence[str]) -> bool:
    """Whether a first row holds values: numbers, but not 0, 1, 2, ... as pandas names columns."""
    cells = row[not row[0].strip() :]
    numbered = len(row) > 1 and cells == [str(i) for i in range(len(cells))]
    return not numbered and all(_is_number(text) for text in row)


def _is_number(text: str) -> bool:
    try:
        _float(text)
    except ValueError:
        return False
    return True


def _float(text: str) -> float:
    """A number; NaN where there is nothing."""
    return float(text) if text.strip() else np.nan


def _floats(row: Sequence[str], where: str, columns: int) -> list[float]:
    if len(row) != columns:
        hint = "Leave cells empty where a frame was not observed."
        raise DataError(explain(where, f"{columns} values", str(len(row)), hint))
    wrong = [text for text in row if not _is_number(text)]
    if wrong:
        hint = "Write numbers, or nothing where a frame was not observed."
        raise DataError(explain(where, "numbers", repr(wrong[0]), hint))
    return [_float(text) for text in row]
