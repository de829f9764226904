"""Draws of a run, on disk for ArviZ."""

from __future__ import annotations

from pathlib import Path
from shutil import disk_usage
from typing import Any

import xarray as xr

from pyro_lvm.errors import explain
from pyro_lvm.training.files import HINT, WriteError, written_whole

__all__ = ["save_container"]


def save_container(container: Any, path: Path) -> None:
    """Write an ``arviz.InferenceData`` or ``xarray.DataTree`` as netCDF.

    The room for it is looked at before: HDF5, once it has met a full disk, may end the process.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(group.nbytes for group in _groups(container)), disk_usage(path.parent).free
    if free < needed:
        expected, found = (f"{size / 2**20:.3g} MiB" for size in (needed, free))
        raise WriteError(explain(f"file {path}", f"room for {expected}", found, HINT))
    with written_whole(path) as temporary:
        container.to_netcdf(str(temporary), engine="h5netcdf")


def _groups(container: Any) -> list[xr.Dataset]:
    if isinstance(container, xr.DataTree):
        return [node.to_dataset() for node in container.subtree]
    return [container[name] for name in container.groups()]
