"""Data as users have them, in one form: a dataset that is read by lists of indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_lvm.data import check_data
from pyro_lvm.errors import DataError, explain
from pyro_lvm.training.rng import generator_at

__all__ = ["Data", "InMemory", "as_dataset", "split"]

Data = Any
"""A tensor, a tuple or dict of tensors, a ``Dataset`` or a ``DataLoader``."""


class InMemory(Dataset[Any]):
    """Tensors of equal length; a list of indices gives a batch of the same structure."""

    def __init__(self, tensors: Tensor | tuple[Tensor, ...] | dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(_named(self.tensors).values())))

    def __getitem__(self, index: int) -> Any:
        return _map(lambda t: t[index], self.tensors)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        rows = torch.as_tensor(indices)
        return _map(lambda t: t[rows.to(t.device)], self.tensors)


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
    dataset = InMemory(_as_tensors(data, name))
    _check_lengths(_named(dataset.tensors, name))
    if not allow_nan:
        _check_values(_named(dataset.tensors, name))
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
    order = torch.randperm(total, generator=generator_at(seed, "split")).tolist()
    return _subset(dataset, order[held_out:]), _subset(dataset, order[:held_out])


def _subset(dataset: Dataset[Any], indices: list[int]) -> Dataset[Any]:
    if isinstance(dataset, InMemory):
        return InMemory(dataset.__getitems__(indices))
    return Subset(dataset, indices)


def _as_tensors(data: Data, name: str) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
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


def _constant(value: Any) -> Tensor:
    """As a tensor without the graph it may come with, as data drawn from a model do."""
    return torch.as_tensor(value).detach()


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


def _check_lengths(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dim() == 0:
            raise DataError(
                explain(name, "one row per datum", "a tensor without dims", "Add a data dim.")
            )
        if len(tensor) == 0:
            raise _empty(name)
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
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


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    masks = [t for t in tensors.values() if t.dtype == torch.bool]
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            mask = next((m for m in masks if m.shape == tensor.shape), None)
            check_data(tensor, name, mask=mask)


def _empty(name: str) -> DataError:
    return DataError(explain(name, "at least one datum", "none", "Check the file or the filter."))


def _named(tensors: Any, name: str = "data") -> dict[str, Tensor]:
    if isinstance(tensors, Tensor):
        return {name: tensors}
    pairs = tensors.items() if isinstance(tensors, dict) else enumerate(tensors)
    return {f"{name}[{key!r}]": value for key, value in pairs}


def _map(function: Callable[[Tensor], Tensor], tensors: Any) -> Any:
    if isinstance(tensors, Tensor):
        return function(tensors)
    if isinstance(tensors, dict):
        return {key: function(value) for key, value in tensors.items()}
    return tuple(function(value) for value in tensors)
