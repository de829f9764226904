"""Completed data with their uncertainty: as tensors, pandas frames and for ArviZ."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.inference_data import Groups, Variable, as_container
from pyro_lvm.missing import Schema

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Imputations"]


@dataclass(frozen=True)
class Imputations:
    """Completed data, and how far to trust them.

    Attributes:
        values: ``(M, *data)``; observed entries are the data's own, bit for bit.
        observed: bool ``(*data,)``, True = observed.
        effective_sample_size: ``(*batch,)`` particles, of ``num_particles``, where the
            imputations were chosen by weight.
        khat: ``(*batch,)``, Pareto shape of these weights. Above 0.7 the guide misses where the
            posterior given the observed entries is, and the imputations are not to be trusted.
        acceptance: ``(*batch,)``, share of accepted moves, where chains made the imputations.
        num_chains: of one length each; the M imputations are those of the first, then those of
            the next.

    Example:
        Two imputations of a row, as ArviZ wants them:

        >>> x = torch.tensor([[[1.0, 5.0]], [[1.0, 6.0]]])
        >>> imputed = Imputations(x, observed=torch.tensor([[True, False]]))
        >>> dict(imputed.to_xarray().sizes)
        {'chain': 1, 'draw': 2, 'row': 1, 'column': 2}
    """

    values: Tensor
    observed: Tensor
    effective_sample_size: Tensor | None = None
    khat: Tensor | None = None
    acceptance: Tensor | None = None
    num_chains: int = 1

    @classmethod
    def joined(cls, parts: Sequence[Imputations]) -> Imputations:
        """Imputations of several sets of rows, made by one method, one below the other."""
        quality: dict[str, Any] = {
            name: torch.cat([part.quality[name] for part in parts]) for name in parts[0].quality
        }
        values = torch.cat([part.values for part in parts], 1)
        observed = torch.cat([part.observed for part in parts])
        return replace(parts[0], values=values, observed=observed, **quality)

    @property
    def quality(self) -> dict[str, Tensor]:
        """What is known of each row: ``khat``, ``effective_sample_size``, ``acceptance``."""
        known = {
            "khat": self.khat,
            "effective_sample_size": self.effective_sample_size,
            "acceptance": self.acceptance,
        }
        return {name: quality for name, quality in known.items() if quality is not None}

    def cpu(self) -> Imputations:
        """The same on the CPU."""
        quality: dict[str, Any] = {name: row.cpu() for name, row in self.quality.items()}
        return replace(self, values=self.values.cpu(), observed=self.observed.cpu(), **quality)

    def frames(self, frame: Any, schema: Schema) -> list[Any]:
        """M completed copies of a frame, of its dtypes; observed cells are its own.

        Args:
            frame: what ``schema`` encoded for the imputation.
            schema: its schema.

        Raises:
            DataError: imputations of another number of rows or columns.
        """
        self._check_rows(frame)
        return [schema.fill(frame, values) for values in self.values]

    def to_xarray(self, frame: Any = None, schema: Schema | None = None) -> xr.DataArray:
        """All imputations, ``(chain, draw, row, column)``; see :meth:`to_inference_data`."""
        array: xr.DataArray = self.to_inference_data(frame, schema)["posterior"]["x"]
        return array

    def to_inference_data(self, frame: Any = None, schema: Schema | None = None) -> Any:
        """For ArviZ: groups posterior, observed_data and constant_data.

        The variable "x" has dims ``chain, draw, row, column`` (rows of more than one dim have
        ``dim_2`` and so on); in observed_data, without the first two, it is NaN where missing.
        Constant data are ``observed`` and, as far as they are known, ``khat``,
        ``effective_sample_size`` and ``acceptance`` of each row.

        Args:
            frame: whose index and columns label rows and columns.
            schema: of the frame; the numbers are then in the frame's units, classes by their
                number, and the attribute "categories" names these as JSON.

        Returns:
            ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` from 1.0.

        Raises:
            DataError: a frame of another number of rows.
        """
        values, observed = self._in_units(frame, schema), self.observed.cpu().numpy()
        dims = ("row", "column", *(f"dim_{i}" for i in range(2, observed.ndim)))[: observed.ndim]
        groups: Groups = {
            "posterior": {"x": Variable(dims, values)},
            "observed_data": {"x": Variable(dims, np.where(observed, values[0], np.nan))},
            "constant_data": {"observed": Variable(dims, observed), **self._per_row()},
        }
        attrs = {"inference_library": "pyro_lvm"}
        if schema is not None:
            attrs["categories"] = json.dumps(_categories(schema))
        return as_container(groups, self._labels(frame, schema), attrs, self.num_chains)

    def _in_units(self, frame: Any, schema: Schema | None) -> Any:  # (M, *data)
        if frame is None or schema is None:
            return self.values.cpu().numpy()
        return np.stack([_numbers(filled, schema) for filled in self.frames(frame, schema)])

    def _labels(self, frame: Any, schema: Schema | None) -> dict[str, Any]:
        if frame is None:
            return {}
        self._check_rows(frame)
        columns = list(frame.columns) if schema is None else schema.names
        return {"row": _plain(frame.index), "column": [str(name) for name in columns]}

    def _per_row(self) -> dict[str, Variable]:
        return {
            name: Variable(("row",)[: quality.dim()], quality.cpu().numpy())
            for name, quality in self.quality.items()
        }

    def _check_rows(self, frame: Any) -> None:
        if len(frame) != len(self.observed):
            hint = "Pass the frame that was imputed."
            expected = f"{len(self.observed)} rows, as imputed"
            raise DataError(explain("frame", expected, str(len(frame)), hint))


def _numbers(frame: Any, schema: Schema) -> Any:
    """A complete frame's cells as floats, classes by their number."""
    columns = [
        column.numbers(frame[column.name])
        if column.num_classes
        else frame[column.name].to_numpy(dtype=np.float64)
        for column in schema.columns
    ]
    return np.stack(columns, 1)


def _categories(schema: Schema) -> dict[str, list[str]]:
    classes = [column for column in schema.columns if column.num_classes]
    return {str(c.name): [str(name) for name in c.dtype.categories] for c in classes}


def _plain(index: Any) -> Any:
    """Labels that a file can hold: numbers as they are, others as text."""
    labels: Sequence[Hashable] = list(index)
    return index.to_numpy() if index.dtype.kind in "iuf" else [str(label) for label in labels]
