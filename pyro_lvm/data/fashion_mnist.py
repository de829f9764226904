"""Fashion-MNIST: an embedded subset, or the whole set as for MNIST."""

from __future__ import annotations

from pathlib import Path

from pyro_lvm.data.archives import Archive
from pyro_lvm.data.files import EMBEDDED, DataFiles, probabilities
from pyro_lvm.data.splits import DataSplits

__all__ = ["ARCHIVE", "fashion_mnist"]

_HINT = (
    "Get the four .gz files of https://github.com/zalandoresearch/fashion-mnist (on Debian: "
    "apt-get install dataset-fashion-mnist, which puts them in /usr/share/datasets) and pass "
    "their folder as root; or pip install torchvision, which downloads them."
)
ARCHIVE = Archive(
    DataFiles("Fashion-MNIST", "fashion_mnist.npz or IDX files", _HINT),
    npz="fashion_mnist.npz",
    folders=("FashionMNIST/raw", "fashion-mnist", "fashion_mnist"),
    torchvision="FashionMNIST",
)


def fashion_mnist(
    root: str | Path | None = None,
    binarization: str | None = "dynamic",
    *,
    full: bool = False,
    num_validation: int = 200,
) -> DataSplits:
    """2,000 pictures of clothes, 28 by 28 pixels, embedded; or all 70,000.

    The subset has 160 training and 40 test pictures of each of the ten classes, drawn once
    from the training and the test pictures of the whole set and stored so that the classes
    take turns: every run of ten pictures has one of each. The last ``num_validation``
    training pictures are held out. Published results are for the whole set.

    Labels: 0 T-shirt or top, 1 trouser, 2 pullover, 3 dress, 4 coat, 5 sandal, 6 shirt,
    7 sneaker, 8 bag, 9 ankle boot.

    Args:
        root: for the whole set, ``fashion_mnist.npz`` (arrays x_train, x_test and perhaps
            y_train, y_test), or a folder with it or with the IDX files. None is the folder in
            the environment variable ``PYRO_LVM_DATA``, else torchvision if it is installed.
        binarization: "dynamic", "fixed" or None, as for :func:`~pyro_lvm.data.mnist.mnist`.
        full: read the whole set; a given ``root`` means the same.
        num_validation: how many training pictures to hold out.

    Raises:
        DataError: the files of the whole set are not there, or damaged.

    References:
        Xiao, Rasul, Vollgraf (2017), *Fashion-MNIST*, arXiv:1708.07747.

    Example:
        >>> data = fashion_mnist()
        >>> len(data.train), len(data.validation), len(data.test)
        (1400, 200, 400)
        >>> data.labels["test"].bincount().tolist()
        [40, 40, 40, 40, 40, 40, 40, 40, 40, 40]
    """
    full = full or root is not None
    train, test, labels = ARCHIVE.load(root if full else EMBEDDED)
    return DataSplits.of_pictures(
        "fashion_mnist" if full else "fashion_mnist_2000",
        probabilities(train),
        probabilities(test),
        labels=labels,
        binarization=binarization,
        num_validation=num_validation,
        licence="MIT",
        source="Zalando SE, https://github.com/zalandoresearch/fashion-mnist",
    )
