"""The Frey faces, from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyro_lvm.data.files import DataFiles, check_pictures, probabilities, read_arrays
from pyro_lvm.data.splits import DataSplits

__all__ = ["frey_faces"]

_HINT = (
    "Get frey_rawface.mat from https://cs.nyu.edu/~roweis/data.html, run "
    "numpy.savez('frey_faces.npz', x=scipy.io.loadmat('frey_rawface.mat')['ff']"
    ".T.reshape(-1, 28, 20)), and pass the file or its folder as root or in the variable "
    "PYRO_LVM_DATA."
)
_FILES = DataFiles("Frey faces", "frey_faces.npz", _HINT)
_SHAPE = (1965, 28, 20)
_BLOCKS, _TEST_BLOCKS = 15, 2


def frey_faces(root: str | Path | None = None, *, num_validation: int = 262) -> DataSplits:
    """1,965 frames of one face in a video, 28 by 20 grey pixels.

    Neighbouring frames are nearly equal, so a split frame by frame would put near copies of
    the test frames in training. The video is cut into 15 blocks of 131 frames, and a fixed
    shuffle of the blocks gives 11 to training, 2 to validation and 2 to the test. Only the
    frames at the ends of blocks have neighbours elsewhere. Within a block frames are in time
    order. Grey values 0 to 255 are divided by 255.

    Read from ``root``, else from the folder in the environment variable ``PYRO_LVM_DATA``.

    Args:
        root: ``frey_faces.npz`` or its folder: array ``x`` ``(1965, 28, 20)`` uint8 in the
            order of time.
        num_validation: the last frames of the 13 blocks that are not test; 131 are a block.

    Raises:
        DataError: the file is not there, or damaged.

    Example:
        >>> frey_faces("no/such/folder")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: Frey faces: expected frey_faces.npz, got none in ...
    """
    blocks = _FILES.read(_FILES.find(root, "frey_faces.npz"), _read)
    blocks = probabilities(blocks[np.random.RandomState(0).permutation(_BLOCKS)])
    return DataSplits.of_pictures(
        "frey_faces",
        blocks[:-_TEST_BLOCKS].flatten(0, 1),
        blocks[-_TEST_BLOCKS:].flatten(0, 1),
        binarization=None,
        num_validation=num_validation,
        licence="none stated",
        source="Brendan Frey; https://cs.nyu.edu/~roweis/data.html",
    )


def _read(path: Path) -> Any:  # (blocks, frames, height, width)
    frames = check_pictures(read_arrays(path)["x"])
    if frames.shape != _SHAPE:
        raise ValueError(f"shape {frames.shape} in place of {_SHAPE}")
    return frames.reshape(_BLOCKS, -1, *_SHAPE[1:])
