"""Omniglot's two small background sets, from local files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from pyro_lvm.data.files import DataFiles, check_pictures, probabilities, read_arrays
from pyro_lvm.data.splits import DataSplits

__all__ = ["omniglot"]

_NPZ = "omniglot_small_28.npz"
_ZIPS = ("images_background_small1.zip", "images_background_small2.zip")
_HINT = (
    f"Put {_ZIPS[0]} and {_ZIPS[1]} of https://github.com/brendenlake/omniglot (folder python) "
    "in a folder and pass it as root or in the variable PYRO_LVM_DATA."
)
_FILES = DataFiles("Omniglot", f"{_NPZ} or {_ZIPS[0]}", _HINT)
_DRAWERS, _TEST_DRAWERS = 20, 4


def omniglot(
    root: str | Path | None = None,
    binarization: str | None = "dynamic",
    *,
    num_validation: int = 484,
) -> DataSplits:
    """4,840 handwritten characters, 28 by 28 pixels: the small sets of Omniglot.

    The union of the small background sets 1 and 2, which share 50 characters: 242 characters,
    each by 20 drawers. **Published Omniglot results are for all 32,460 pictures and do not
    apply here.** The split is by drawer, so that every character is in every part: drawers 1
    to 14 train, 15 and 16 validation, 17 to 20 test. A drawer's number is that of the file,
    and each alphabet has its own twenty.

    Read from ``root``, else from the folder in the environment variable ``PYRO_LVM_DATA``.
    Pixel probabilities are the share of ink in a box of the original 105 by 105 pixels.
    Labels number the characters in the order of "alphabet/character".

    Args:
        root: a folder with the two zip files as published, or ``omniglot_small_28.npz`` or
            its folder: arrays ``x`` ``(N, 28, 28)`` uint8 with ink = 255, and ``character``,
            "alphabet/character" of each, the pictures of one character in order of drawers.
        binarization: "dynamic", "fixed" or None, as for :func:`~pyro_lvm.data.mnist.mnist`.
        num_validation: the last rows of drawers 1 to 16; 242 are one drawer.

    Raises:
        DataError: the files are not there, or damaged.

    References:
        Lake, Salakhutdinov, Tenenbaum (2015), *Human-level concept learning through
        probabilistic program induction*, Science 350.

    Example:
        >>> omniglot("no/such/folder")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: Omniglot: expected omniglot_small_28.npz or ...
    """
    path = _FILES.find(root, _NPZ, _ZIPS[0])
    pictures, labels = _FILES.read(path, _read)
    test = len(labels) * _TEST_DRAWERS // _DRAWERS
    return DataSplits.of_pictures(
        "omniglot_small",
        probabilities(pictures[:-test]),
        probabilities(pictures[-test:]),
        labels=(labels[:-test], labels[-test:]),
        binarization=binarization,
        num_validation=num_validation,
        licence="MIT",
        source="Lake, Salakhutdinov, Tenenbaum, https://github.com/brendenlake/omniglot",
    )


def _read(path: Path) -> tuple[Any, Any]:
    """Pictures and labels, drawer by drawer."""
    pictures, characters = _read_zips(path.parent) if path.suffix == ".zip" else _read_npz(path)
    names, labels, counts = np.unique(characters, return_inverse=True, return_counts=True)
    if (counts != _DRAWERS).any():
        raise ValueError(f"not {_DRAWERS} pictures of each of {len(names)} characters")
    by_drawer = np.argsort(labels, kind="stable").reshape(-1, _DRAWERS).T.ravel()
    return check_pictures(pictures)[by_drawer], labels[by_drawer]


def _read_npz(path: Path) -> tuple[Any, Any]:
    file = read_arrays(path)
    return file["x"], file["character"]


def _read_zips(folder: Path) -> tuple[Any, Any]:
    drawn = {}
    for name in _ZIPS:
        with zipfile.ZipFile(folder / name) as archive:
            for entry in archive.namelist():  # set/alphabet/character/number_drawer.png
                if entry.startswith("images") and entry.endswith(".png"):
                    _, alphabet, character, file = entry.split("/")
                    key = f"{alphabet}/{character}", file.rpartition("_")[2]
                    with archive.open(entry) as picture:
                        drawn[key] = _shrink(picture)
    keys = sorted(drawn)
    return np.stack([drawn[key] for key in keys]), [character for character, _ in keys]


def _shrink(picture: IO[bytes]) -> Any:
    from PIL import Image  # comes with matplotlib

    grey = Image.open(picture).convert("L")
    return 255 - np.asarray(grey.resize((28, 28), Image.Resampling.BOX))
