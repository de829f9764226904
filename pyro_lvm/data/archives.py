"""Pictures and labels in the formats of MNIST: an npz file, IDX files, or torchvision's."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_lvm.data.files import DataFiles, check_pictures, place, read_arrays

__all__ = ["Archive", "Pictures"]

_IMAGES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
_LABELS = ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")


class Pictures(NamedTuple):
    """Arrays as they are in the files.

    Attributes:
        train: ``(N, 28, 28)`` uint8.
        test: ``(N', 28, 28)`` uint8.
        labels: ``(N,)`` and ``(N',)`` classes, where they are known.
    """

    train: Any
    test: Any
    labels: tuple[Any, Any] | None


@dataclass(frozen=True)
class Archive:
    """Where the files of one data set can lie, as each of its distributors calls them.

    Attributes:
        files: for errors.
        npz: name of the file with arrays x_train, x_test and perhaps y_train, y_test.
        folders: of IDX files, whose names are the same for all data sets of this format.
        torchvision: name of the class in ``torchvision.datasets``.
    """

    files: DataFiles
    npz: str
    folders: tuple[str, ...]
    torchvision: str

    def load(self, root: str | Path | None) -> Pictures:
        """The pictures in ``root``, else in ``PYRO_LVM_DATA``, else by torchvision.

        Raises:
            DataError: the files are not there, or damaged.
        """
        if root is not None:
            found = self._read(Path(root), ("", *self.folders))
        else:
            base = place(None)
            found = (self._read(base, self.folders) if base else None) or self._download()
        if found is None:
            raise self.files.missing(root)
        return found

    def _read(self, root: Path, folders: tuple[str, ...]) -> Pictures | None:
        for npz in (root, *(root / folder / self.npz for folder in ("", *folders))):
            if npz.is_file():
                return self.files.read(npz, _read_npz)
        for folder in folders:
            pictures = self._read_pair(root / folder, _IMAGES, dims=3)
            if pictures is not None:
                return Pictures(*pictures, self._read_pair(root / folder, _LABELS, dims=1))
        return None

    def _read_pair(self, folder: Path, names: tuple[str, ...], dims: int) -> tuple[Any, Any] | None:
        paths = [path for name in names for path in sorted(folder.glob(f"{name}*"))[:1]]
        if len(paths) < len(names):
            return None
        train, test = (self.files.read(path, partial(_read_idx, dims=dims)) for path in paths)
        return train, test

    def _download(self) -> Pictures | None:
        if find_spec("torchvision") is None:
            return None
        dataset = getattr(import_module("torchvision.datasets"), self.torchvision)
        root = str(Path.home() / ".cache" / "pyro_lvm")
        train, test = (dataset(root, train=train, download=True) for train in (True, False))
        labels = (train.targets.numpy(), test.targets.numpy())
        return Pictures(train.data.numpy(), test.data.numpy(), labels)


def _read_npz(path: Path) -> Pictures:
    file = read_arrays(path)
    labels = (file["y_train"], file["y_test"]) if "y_train" in file else None
    return Pictures(check_pictures(file["x_train"]), check_pictures(file["x_test"]), labels)


def _read_idx(path: Path, dims: int) -> Any:
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    magic, *shape = np.frombuffer(raw, ">i4", 1 + dims).tolist()
    if magic != 0x800 + dims:  # unsigned bytes in an array of so many dims
        raise ValueError(f"magic number {magic} in place of {0x800 + dims}")
    return np.frombuffer(raw, np.uint8, offset=4 * (1 + dims)).reshape(shape)
