"""Data as users have them, in one form: a dataset that is read by lists of indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_lvm.data import check_data
from pyro_lvm.errors import DataError, explain
from pyro_lvm.training.rng import generator_at
from pyro_lvm.training.rows import Array, Arrays, Rows, named, read, slices

__all__ = ["Data", "as_dataset", "split"]

Data = Any
"""A tensor or array, a tuple or dict of them, a ``Dataset`` or a ``DataLoader``.

A ``numpy.memmap`` is read batch by batch and never loaded.
"""


def as_dataset(data: Data, name: str, allow_nan: bool = False) -> Dataset[Any]:
    """``data`` as a map-style dataset, checked.

    A boolean tensor among the data is a mask, True = observed, for those of its shape.

    Args:
        data: what the user passed.
        name: the argument's name, for messages.
        allow_nan: do not look for NaN and infinities.

    Raises:
        DataError: no data, unequal lengths, NaN or infinities, or a type that is not known.
    """
    if isinstance(data, DataLoader):
        as_dataset(data.dataset, name, allow_nan)
        return data.dataset
    if isinstance(data, TensorDataset):
        data = tuple(data.tensors)
    if isinstance(data, Dataset):
        return _checked_dataset(data, name)
    dataset = Rows(_as_arrays(data, name))
    _check_lengths(named(dataset.arrays, name))
    if not allow_nan:
        _check_values(named(dataset.arrays, name))
    return dataset


def split(dataset: Dataset[Any], fraction: float, seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """Two disjoint parts, the second with ``fraction`` of the data, chosen by ``seed``.

    Raises:
        DataError: one of the parts would be empty.
    """
    total = len(dataset)  # type: ignore[arg-type]
    held_out = round(fraction * total)
    if not 0 < held_out < total:
        raise DataError(
            explain(
                "validation",
                f"a fraction that leaves data on both sides of {total}",
                f"{fraction}",
                "Pass a fraction such as 0.1, or the held-out data themselves.",
            )
        )
    order = torch.randperm(total, generator=generator_at(seed, "split"), device="cpu").tolist()
    return _subset(dataset, order[held_out:]), _subset(dataset, order[:held_out])


def _subset(dataset: Dataset[Any], indices: list[int]) -> Dataset[Any]:
    if isinstance(dataset, Rows):
        return dataset.some(indices)
    return Subset(dataset, indices)


def _as_arrays(data: Data, name: str) -> Arrays:
    if isinstance(data, Tensor | np.ndarray):
        return _constant(data)
    items = data.values() if isinstance(data, Mapping) else data
    is_group = isinstance(data, Mapping | tuple | list)
    if not is_group or not items or not all(isinstance(i, Tensor | np.ndarray) for i in items):
        raise DataError(
            explain(
                name,
                "a tensor, a tuple or dict of tensors, a Dataset or a DataLoader",
                _describe(data),
                "Convert it with torch.as_tensor; bind other arguments with functools.partial.",
            )
        )
    if isinstance(data, Mapping):
        return {key: _constant(value) for key, value in data.items()}
    return tuple(_constant(value) for value in data)


def _constant(value: Any) -> Array:
    """As a tensor without the graph it may come with, where it is; on disk too."""
    if isinstance(value, Tensor):
        return value.detach()
    return value if isinstance(value, np.memmap) else torch.as_tensor(value, device="cpu")


def _describe(data: Data) -> str:
    if isinstance(data, Mapping | tuple | list):
        items = data.values() if isinstance(data, Mapping) else data
        kinds = ", ".join(sorted({type(item).__name__ for item in items}))
        return f"a {type(data).__name__} of {kinds or 'nothing'}"
    return f"a {type(data).__name__}"


def _checked_dataset(dataset: Dataset[Any], name: str) -> Dataset[Any]:
    if isinstance(dataset, IterableDataset):
        raise DataError(
            explain(
                name,
                "a dataset with a length and an order that can be resumed",
                "an IterableDataset",
                "Use a map-style Dataset with __len__ and __getitem__.",
            )
        )
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise _empty(name)
    return dataset


def _check_lengths(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if array.ndim == 0:
            raise DataError(
                explain(name, "one row per datum", "a tensor without dims", "Add a data dim.")
            )
        if len(array) == 0:
            raise _empty(name)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(
            explain(
                "data",
                "tensors of equal length",
                found,
                "Give each tensor one row per datum; bind constants with functools.partial.",
            )
        )


def _check_values(arrays: Mapping[str, Array]) -> None:
    masks = [array for array in arrays.values() if str(array.dtype) in ("bool", "torch.bool")]
    for name, array in arrays.items():
        mask = next((m for m in masks if m.shape == array.shape), None)
        for rows in slices(array):
            place = f"{name}, rows from {rows.start} on" if rows.start else name
            check_data(read(array, rows), place, None if mask is None else read(mask, rows))


def _empty(name: str) -> DataError:
    return DataError(explain(name, "at least one datum", "none", "Check the file or the filter."))
