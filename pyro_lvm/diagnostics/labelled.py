"""Draws of sites as named arrays: plates and event dims by name, with their labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.inference_data import DATA_GROUPS, Groups, Variable

__all__ = ["labelled", "labels_of"]

PlatedGroups = Mapping[str, Mapping[str, Plated]]
Names = Mapping[str, Sequence[str]]


def labelled(groups: PlatedGroups, dims: Names) -> Groups:
    """The same groups with a name for every dim, as NumPy arrays.

    Args:
        groups: draws by ArviZ group and variable.
        dims: names of the event dims of a variable, by its name; ``<variable>_dim_0`` and so on
            for the others.

    Raises:
        PyroLVMError: ``dims`` that do not fit the variables.
    """
    _check_dims(dims, groups)
    return {
        group: {name: _variable(name, draws, dims, group) for name, draws in variables.items()}
        for group, variables in groups.items()
    }


def labels_of(
    chunks: Chunks, groups: Groups, coords: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Labels by dim: what is given, or for a plate the indices of its data.

    Labels of all the data of a subsampled plate stand for those in use.
    """
    used = {dim for variables in groups.values() for v in variables.values() for dim in v.dims}
    indices = {name: as_array(rows) for name, rows in chunks.plates.indices.items()}
    sizes = {f.name: f.full_size for site in chunks.probe.model.values() for f in site.frames}
    labels: dict[str, Any] = {plate: indices[plate] for plate in used & set(indices)}
    for dim, given in coords.items():
        of_all = dim in indices and len(given) == sizes.get(dim)
        labels[dim] = np.asarray(given)[indices[dim]] if of_all else given
    return labels


def as_array(values: Tensor) -> Any:
    """A NumPy array on the CPU; NumPy has no bfloat16."""
    values = torch.as_tensor(values).detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _variable(name: str, draws: Plated, dims: Names, group: str) -> Variable:
    values = as_array(draws.values[0] if group in DATA_GROUPS else draws.values)
    default = [f"{name}_dim_{i}" for i in range(_event_dim(draws))]
    return Variable((*draws.plates, *(dims.get(name, default) if default else ())), values)


def _event_dim(draws: Plated) -> int:
    return draws.values.dim() - 1 - len(draws.plates)


def _check_dims(dims: Names, groups: PlatedGroups) -> None:
    event_dims: dict[str, int] = defaultdict(int)
    for variables in groups.values():
        for name, draws in variables.items():
            event_dims[name] = max(event_dims[name], _event_dim(draws))
    for name, given in dims.items():
        if name not in event_dims:
            raise _bad_dims(name, f"a variable among {sorted(event_dims)}", "no such variable")
        if len(given) != event_dims[name]:
            raise _bad_dims(name, f"{event_dims[name]} names", f"{list(given)}")


def _bad_dims(name: str, expected: str, found: str) -> PyroLVMError:
    hint = "Name the event dims only, left to right; plates have their own names."
    return PyroLVMError(explain(f"dims of '{name}'", expected, found, hint))
