"""MNIST, from a local file or folder, or by way of torchvision."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.splits import DataSplits
from pyro_lvm.errors import DataError, explain

__all__ = ["mnist"]

Pictures = tuple[Any, Any]  # train and test, (N, 28, 28) uint8 arrays

_IDX = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
_FOLDERS = ("", "MNIST/raw", "mnist")
_HINT = (
    "Put mnist.npz (arrays x_train, x_test) or the IDX files train-images-idx3-ubyte and "
    "t10k-images-idx3-ubyte, .gz or not, in a folder and pass it as root or in the variable "
    "PYRO_LVM_DATA; or pip install torchvision, which downloads them."
)


def mnist(
    root: str | Path | None = None,
    binarization: str | None = "dynamic",
    *,
    num_validation: int = 400,
) -> DataSplits:
    """60,000 training and 10,000 test pictures of handwritten digits, 28 by 28 pixels.

    Read from ``root``, else from the folder in the environment variable ``PYRO_LVM_DATA``,
    else by torchvision if it is installed. The last ``num_validation`` training pictures are
    held out, 400 as in Burda et al. (2016), arXiv:1509.00519.

    Args:
        root: ``mnist.npz``, or a folder with it or with the IDX files.
        binarization: "dynamic" draws training pixels anew for each batch, by ``transform``;
            "fixed" draws them once; None leaves grey values in [0, 1]. Results under the two
            are not comparable. See
            :meth:`DataSplits.of_pictures <pyro_lvm.data.splits.DataSplits.of_pictures>`.
        num_validation: how many of the 60,000 to hold out.

    Raises:
        DataError: the files are not there, or damaged.

    Example:
        >>> mnist("no/such/folder")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: MNIST: expected mnist.npz or IDX files, got none in ...
    """
    train, test = (_probabilities(pictures) for pictures in _find(root))
    return DataSplits.of_pictures(
        "mnist",
        train,
        test,
        binarization=binarization,
        num_validation=num_validation,
        licence="CC BY-SA 3.0, as commonly given",
        source="LeCun, Cortes, Burges, The MNIST database of handwritten digits",
    )


def _probabilities(pictures: Any) -> Tensor:
    return torch.as_tensor(np.array(pictures), dtype=torch.get_default_dtype()) / 255


def _find(root: str | Path | None) -> Pictures:
    if root is not None:
        found = _read(Path(root))
    else:
        folder = os.environ.get("PYRO_LVM_DATA")
        found = (_read(Path(folder)) if folder else None) or _torchvision()
    if found is None:
        place = root or os.environ.get("PYRO_LVM_DATA") or "root or PYRO_LVM_DATA, both empty"
        raise DataError(explain("MNIST", "mnist.npz or IDX files", f"none in {place}", _HINT))
    return found


def _read(root: Path) -> Pictures | None:
    for folder in _FOLDERS:
        npz = root if root.is_file() else root / folder / "mnist.npz"
        if npz.is_file():
            pair: Pictures = _checked(npz, _read_npz)
            return pair
        parts = [p for name in _IDX for p in (root / folder).glob(f"{name}*")]
        if len(parts) >= 2:
            train, test = (next(p for p in parts if p.name.startswith(name)) for name in _IDX)
            return _checked(train, _read_idx), _checked(test, _read_idx)
    return None


def _torchvision() -> Pictures | None:
    if find_spec("torchvision") is None:
        return None
    datasets = import_module("torchvision.datasets")
    root = Path.home() / ".cache" / "pyro_lvm"
    parts = (datasets.MNIST(str(root), train=train, download=True) for train in (True, False))
    train, test = (part.data.numpy() for part in parts)
    return train, test


def _read_npz(path: Path) -> Pictures:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return _pictures(file["x_train"]), _pictures(file["x_test"])


def _read_idx(path: Path) -> Any:
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    magic, *shape = np.frombuffer(raw, ">i4", 4).tolist()
    if magic != 2051:
        raise ValueError(f"magic number {magic} in place of 2051")
    return _pictures(np.frombuffer(raw, np.uint8, offset=16).reshape(shape))


def _pictures(array: Any) -> Any:
    if array.dtype != np.uint8 or array.ndim != 3:
        raise ValueError(f"{array.dtype} of shape {array.shape} in place of uint8 pictures")
    return array


def _checked(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        found = f"{type(error).__name__}: {error}"
        raise DataError(explain(str(path), "a whole MNIST file", found, _HINT)) from error
