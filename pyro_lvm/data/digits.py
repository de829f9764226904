"""Handwritten digits, 8 by 8 pixels: the embedded data set."""

from __future__ import annotations

import numpy as np
import torch

from pyro_lvm.data.splits import DataSplits

__all__ = ["digits"]

_NUM_TEST = 397


def digits(binarization: str | None = "dynamic", *, num_validation: int = 100) -> DataSplits:
    """The 1797 handwritten digits that come with scikit-learn: no download.

    A fixed shuffle, then 1400 pictures for training and validation and 397 for the test.
    Pixel probabilities are the grey values 0 to 16 divided by 16. Labels are the digits.

    Args:
        binarization: "dynamic" draws training pixels anew for each batch, by ``transform``;
            "fixed" draws them once; None leaves grey values. See
            :meth:`DataSplits.of_pictures <pyro_lvm.data.splits.DataSplits.of_pictures>`.
        num_validation: how many of the 1400 to hold out.

    Example:
        >>> data = digits()
        >>> data
        DataSplits('digits', train=1300, validation=100, test=397, feature_shape=(8, 8))
        >>> sorted(set(data.transform(data.train[:20]).flatten().tolist()))
        [0.0, 1.0]
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped] # here, as it is slow to import

    original = load_digits()
    order = np.random.RandomState(0).permutation(len(original.images))
    shuffled = torch.tensor(original.images[order] / 16.0, dtype=torch.get_default_dtype())
    labels = original.target[order]
    return DataSplits.of_pictures(
        "digits",
        shuffled[:-_NUM_TEST],
        shuffled[-_NUM_TEST:],
        labels=(labels[:-_NUM_TEST], labels[-_NUM_TEST:]),
        binarization=binarization,
        num_validation=num_validation,
        licence="CC BY 4.0 (UCI); BSD-3-Clause (scikit-learn's copy)",
        source="Alpaydin, Kaynak (1998), Optical recognition of handwritten digits, UCI",
    )
