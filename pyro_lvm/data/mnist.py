"""MNIST, from a local file or folder, or by way of torchvision."""

from __future__ import annotations

from pathlib import Path

from pyro_lvm.data.archives import Archive
from pyro_lvm.data.files import DataFiles, probabilities
from pyro_lvm.data.splits import DataSplits

__all__ = ["mnist"]

_HINT = (
    "Put mnist.npz (arrays x_train, x_test) or the IDX files train-images-idx3-ubyte and "
    "t10k-images-idx3-ubyte, .gz or not, in a folder and pass it as root or in the variable "
    "PYRO_LVM_DATA; or pip install torchvision, which downloads them."
)
_ARCHIVE = Archive(
    DataFiles("MNIST", "mnist.npz or IDX files", _HINT),
    npz="mnist.npz",
    folders=("", "MNIST/raw", "mnist"),
    torchvision="MNIST",
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
    held out, 400 as in Burda et al. (2016), arXiv:1509.00519. Labels are the digits, if the
    files have them.

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
    train, test, labels = _ARCHIVE.load(root)
    return DataSplits.of_pictures(
        "mnist",
        probabilities(train),
        probabilities(test),
        labels=labels,
        binarization=binarization,
        num_validation=num_validation,
        licence="CC BY-SA 3.0, as commonly given",
        source="LeCun, Cortes, Burges, The MNIST database of handwritten digits",
    )
