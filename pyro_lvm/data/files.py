"""The files of a data set: where they are, and errors that say how to get them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["EMBEDDED", "DataFiles", "check_pictures", "place", "probabilities", "read_arrays"]

T = TypeVar("T")

EMBEDDED = Path(__file__).with_name("embedded")
_DAMAGED = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def place(root: str | Path | None) -> Path | None:
    """``root``, else the folder in the environment variable ``PYRO_LVM_DATA``, if there is one."""
    folder = root or os.environ.get("PYRO_LVM_DATA")
    return Path(folder) if folder else None


@dataclass(frozen=True)
class DataFiles:
    """What to call the files of a data set, and how to get them.

    Attributes:
        title: of the data set, for errors.
        expected: what the files are called.
        hint: how to get them, a sentence.
    """

    title: str
    expected: str
    hint: str

    def find(self, root: str | Path | None, *names: str) -> Path:
        """``root`` itself if it is a file, else the first of ``names`` in its folder.

        Raises:
            DataError: there is none.
        """
        base = place(root)
        if base is not None:
            for path in (base, *(base / name for name in names)):
                if path.is_file():
                    return path
        raise self.missing(root)

    def missing(self, root: str | Path | None) -> DataError:
        """The error that there are no such files in ``root``."""
        found = f"none in {place(root) or 'root or PYRO_LVM_DATA, both empty'}"
        return DataError(explain(self.title, self.expected, found, self.hint))

    def read(self, path: Path, reader: Callable[[Path], T]) -> T:
        """``reader(path)``.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return reader(path)
        except _DAMAGED as error:
            found = f"{type(error).__name__}: {error}"
            whole = f"a whole {self.title} file"
            raise DataError(explain(str(path), whole, found, self.hint)) from error


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an npz file by name; those that need pickle are refused."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return dict(file)


def check_pictures(array: Any) -> Any:
    """``array``, if it is ``(N, height, width)`` of uint8; else a ``ValueError``."""
    if array.dtype != np.uint8 or array.ndim != 3:
        raise ValueError(f"{array.dtype} of shape {array.shape} in place of uint8 pictures")
    return array


def probabilities(pictures: Any) -> Tensor:
    """Grey values 0 to 255 as pixel probabilities, in torch's default dtype."""
    return torch.as_tensor(np.array(pictures), dtype=torch.get_default_dtype()) / 255
