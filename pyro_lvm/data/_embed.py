"""Make the embedded subset of Fashion-MNIST: ``python -m pyro_lvm.data._embed FOLDER``.

FOLDER has the IDX files of the whole set. The file that it writes is the same each time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from pyro_lvm.data.fashion_mnist import ARCHIVE
from pyro_lvm.data.files import EMBEDDED


def balanced(labels: Any, per_class: int, random: np.random.RandomState) -> Any:
    """Indices of ``per_class`` data of each class, at random, the classes taking turns."""
    classes = np.unique(labels)
    drawn = [random.permutation(np.flatnonzero(labels == c))[:per_class] for c in classes]
    return np.stack(drawn, axis=1).ravel()


def main(folder: Path, target: Path = EMBEDDED / "fashion_mnist.npz") -> None:
    """Draw the subset and write it."""
    x_train, x_test, labels = ARCHIVE.load(folder)
    if labels is None:
        raise SystemExit(f"no labels in {folder}")
    y_train, y_test = labels
    random = np.random.RandomState(0)
    train, test = balanced(y_train, 160, random), balanced(y_test, 40, random)
    np.savez_compressed(
        target,
        x_train=x_train[train],
        y_train=y_train[train],
        x_test=x_test[test],
        y_test=y_test[test],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
