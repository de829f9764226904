"""Named arrays into an ArviZ container; NumPy and xarray only, whatever made the arrays.

Free of torch, so that it can be tested where ArviZ 1 is and torch is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["DATA_GROUPS", "Groups", "Variable", "as_container"]

DATA_GROUPS = ("observed_data", "constant_data")
"""Groups whose variables have no chain and draw."""


class Variable(NamedTuple):
    """One named array.

    Attributes:
        dims: names of its dims, without chain and draw.
        values: ``(draw, *dims)``, or ``(*dims,)`` in the groups that hold data.
        beside: further labels along the last dim, by name.
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    beside: Mapping[str, NDArray[Any]] = MappingProxyType({})


Groups = Mapping[str, Mapping[str, Variable]]


def as_container(
    groups: Groups,
    coords: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    num_chains: int = 1,
) -> Any:
    """Put ``groups`` into what the installed ArviZ works with.

    Every dim gets coordinates, 0, 1, ... unless given. A dim named like a variable gets
    the suffix ``_dim``, as xarray tells them apart by name alone.

    Args:
        groups: variables by name, by ArviZ's group name.
        coords: labels along a dim, by its name.
        attrs: strings and numbers kept with the whole.
        num_chains: the draws are of so many chains, of one length each, one after the other.

    Returns:
        ``arviz.InferenceData`` for ArviZ 0.x, ``xarray.DataTree`` from 1.0.

    Raises:
        PyroLVMError: ``coords`` of a dim that no variable has, of another length, or of objects
            that no file keeps.

    Example:
        >>> draws = Variable(("person",), np.zeros((5, 3)))
        >>> container = as_container({"posterior": {"height": draws}})
        >>> dict(container["posterior"].sizes)
        {'chain': 1, 'draw': 5, 'person': 3}
    """
    groups = {group: dict(variables) for group, variables in groups.items() if variables}
    names = {name for variables in groups.values() for name in variables}
    labels = _labels(groups, coords or {})
    datasets = {
        group: xr.Dataset(
            {
                name: _array(variable, group, names, labels, num_chains)
                for name, variable in variables.items()
            }
        )
        for group, variables in groups.items()
    }
    return _container(datasets, dict(attrs or {}))


def _container(datasets: dict[str, xr.Dataset], attrs: dict[str, Any]) -> Any:
    import arviz  # loads plotting libraries, so not before it is needed

    major = int(arviz.__version__.split(".")[0])
    if major < 1:
        groups: dict[str, Any] = {**datasets}
        return arviz.InferenceData(attrs=attrs, **groups)
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **datasets})


def _array(
    variable: Variable,
    group: str,
    names: set[str],
    labels: Mapping[str, NDArray[Any]],
    num_chains: int,
) -> xr.DataArray:
    dims = [f"{dim}_dim" if dim in names else dim for dim in variable.dims]
    coords: dict[str, Any] = {n: labels[o] for n, o in zip(dims, variable.dims, strict=True)}
    coords |= {name: (dims[-1], _label(name, given)) for name, given in variable.beside.items()}
    values = variable.values
    if group not in DATA_GROUPS:
        values = values.reshape(num_chains, -1, *values.shape[1:])
        dims = ["chain", "draw", *dims]
        coords = {"chain": np.arange(num_chains), "draw": np.arange(values.shape[1]), **coords}
    return xr.DataArray(values, dims=dims, coords=coords)


def _labels(groups: Groups, coords: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    sizes = _sizes(groups)
    for dim, given in coords.items():
        if dim not in sizes:
            raise _bad_coords(dim, f"a dim among {sorted(sizes)}", "no such dim")
        if len(given) != sizes[dim]:
            raise _bad_coords(dim, f"{sizes[dim]} labels", f"{len(given)}")
    return {dim: _label(dim, coords.get(dim, range(size))) for dim, size in sizes.items()}


def _label(dim: str, given: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    labels = np.asarray(given)
    others = {type(each).__name__ for each in labels.flat if not isinstance(each, str)}
    if labels.ndim != 1 or (labels.dtype == object and others):
        found = f"{min(others)} objects" if labels.ndim == 1 else f"{labels.ndim} dims of them"
        hint = "Pass index.map(str) for a pandas index of several levels or of other objects."
        expected = "numbers, strings or times, one for each entry"
        raise PyroLVMError(explain(f"coords of '{dim}'", expected, found, hint))
    return labels


def _sizes(groups: Groups) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for variables in groups.values():
        for name, (dims, values, _) in variables.items():
            for dim, size in zip(dims, values.shape[values.ndim - len(dims) :], strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise _sizes_differ(dim, name, sizes[dim], size)
    return sizes


def _sizes_differ(dim: str, name: str, first: int, second: int) -> PyroLVMError:
    found = f"{first} and, in variable '{name}', {second}"
    hint = "Give dims of different length different names in dims=."
    return PyroLVMError(explain(f"dim '{dim}'", "one length everywhere", found, hint))


def _bad_coords(dim: str, expected: str, found: str) -> PyroLVMError:
    return PyroLVMError(
        explain(
            f"coords of '{dim}'",
            expected,
            found,
            "Name plates as in the model and event dims as in dims=, one label an entry.",
        )
    )
