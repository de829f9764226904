"""A data set in its fixed parts, with where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.binarize import Binarize, check_probabilities
from pyro_lvm.errors import DataError, ProgramError, explain

__all__ = ["DataSplits"]

_BINARIZATIONS = (None, "fixed", "dynamic")


@dataclass(frozen=True, repr=False, eq=False)
class DataSplits:
    """A data set: training, validation and test rows, and how they may be used.

    Attributes:
        name: the data set's name.
        train: ``(N, D)`` rows.
        validation: ``(N', D)`` rows, perhaps none.
        test: ``(N'', D)`` rows.
        feature_shape: shape that a row has when it is not flat, for pictures; empty if it has none.
        licence: terms of use, if there are any.
        source: where to get it, and whom to cite, if others have it too.
        transform: what to do to each training batch, called with the batch and a generator;
            None for nothing.
        labels: int64 classes of the rows of a part, ``(N,)``, by the part's name: "train",
            "validation" and "test", or empty if there are none.

    Raises:
        DataError: a part has not as many labels as rows.

    Example:
        >>> rows = torch.rand(4, 2)
        >>> DataSplits("toy", rows, rows[:0], rows[:1])
        DataSplits('toy', train=4, validation=0, test=1, feature_shape=())
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    feature_shape: tuple[int, ...] = ()
    licence: str = ""
    source: str = ""
    transform: Callable[[Tensor, torch.Generator | None], Tensor] | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, labels in self.labels.items():
            _check_labels(f"{self.name} {part} labels", labels, len(getattr(self, part)))

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{part}={len(getattr(self, part))}" for part in ("train", "validation", "test")
        )
        return f"DataSplits({self.name!r}, {sizes}, feature_shape={self.feature_shape})"

    @classmethod
    def of_pictures(
        cls,
        name: str,
        train: Tensor,
        test: Tensor,
        *,
        binarization: str | None,
        num_validation: int,
        licence: str,
        source: str,
        labels: tuple[Any, Any] | None = None,
    ) -> DataSplits:
        """Flatten pictures of pixel probabilities, hold some out, and binarise.

        Args:
            name: the data set's name.
            train: ``(N, height, width)`` in [0, 1]; its last rows are the validation part.
            test: ``(N'', height, width)`` in [0, 1].
            binarization: "dynamic" leaves ``train`` as it is and draws its pixels anew for
                each batch, by ``transform``; "fixed" draws them once; both draw validation
                and test once, the same each time. None leaves all parts as they are.
            num_validation: rows to hold out, N' < N.
            licence: terms of use.
            source: where to get it, and whom to cite.
            labels: ``(N,)`` and ``(N'',)`` classes, arrays or tensors.
        """
        _check_options(binarization, num_validation, len(train))
        shape = tuple(train.shape[1:])
        check_probabilities(train, f"{name} train")
        check_probabilities(test, f"{name} test")
        train, validation = train.flatten(1).split([len(train) - num_validation, num_validation])
        test = test.flatten(1)
        draw, generator = Binarize(), torch.Generator().manual_seed(0)
        if binarization is not None:
            validation, test = draw(validation, generator), draw(test, generator)
        if binarization == "fixed":
            train = draw(train, generator)
        transform = draw if binarization == "dynamic" else None
        classes = {} if labels is None else _labels(*labels, num_validation)
        return cls(name, train, validation, test, shape, licence, source, transform, classes)


def _labels(train: Any, test: Any, num_validation: int) -> dict[str, Tensor]:
    train, test = (torch.as_tensor(np.array(part), dtype=torch.long) for part in (train, test))
    train, validation = train.split([len(train) - num_validation, num_validation])
    return {"train": train, "validation": validation, "test": test}


def _check_labels(where: str, labels: Tensor, num_rows: int) -> None:
    if labels.shape != (num_rows,):
        expected = f"one for each of {num_rows} rows"
        hint = "Pass the labels of the same rows, in their order."
        raise DataError(explain(where, expected, f"shape {tuple(labels.shape)}", hint))


def _check_options(binarization: str | None, num_validation: int, num_train: int) -> None:
    if binarization not in _BINARIZATIONS:
        expected = f"one of {_BINARIZATIONS}"
        hint = "Pass binarization='dynamic'."
        raise ProgramError(explain("binarization", expected, repr(binarization), hint))
    if not 0 <= num_validation < num_train:
        expected = f"from 0 to {num_train - 1}"
        hint = "Hold out fewer rows."
        raise DataError(explain("num_validation", expected, str(num_validation), hint))
