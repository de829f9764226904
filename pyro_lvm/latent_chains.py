"""Latent values that are kept from step to step: the states of Markov chains, one row a datum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_lvm.errors import CheckpointError, DataError, explain

__all__ = ["LatentChains", "StartingAt"]

Values = Mapping[str, Tensor]


class LatentChains:
    """Values ``(K, *plates, *event)`` by site, of all data, looked up by the numbers of the rows.

    From the first start on they are changed in place.

    Args:
        num_data: N, rows of the data plate; None where there is no such plate.

    Attributes:
        values: by site, of all data; empty before the first start.
        started: bool ``(N,)``, which rows have values.
        dim: of the data plate in the values, from the left.
    """

    def __init__(self, num_data: int | None) -> None:
        self.num_data = num_data
        self.values: dict[str, Tensor] = {}
        self.started = torch.zeros(num_data or 1, dtype=torch.bool)
        self.dim = 1

    def at(self, index: Tensor | None) -> dict[str, Tensor]:
        """Copies of the values of these rows."""
        if index is None:
            return {n: v.clone() for n, v in self.values.items()}
        return {n: v.index_select(self.dim, index.to(v.device)) for n, v in self.values.items()}

    def has(self, index: Tensor | None) -> Tensor:
        """Which of these rows have values, a bool each.

        Raises:
            DataError: a number beyond the rows.
        """
        return self.started if index is None else self.started[self._checked(index.cpu())]

    def start(self, index: Tensor | None, values: Values) -> None:
        """Give those of these rows that have no values theirs."""
        if index is None:
            self.values = {n: v.clone() for n, v in values.items()}
            self.started[:] = True
            return
        new = (~self.has(index)).nonzero().squeeze(1)
        for name, value in values.items():
            self.values.setdefault(name, self._room(value))
        rows = {n: v.index_select(self.dim, new.to(v.device)) for n, v in values.items()}
        self.keep(index[new.to(index.device)], rows)
        self.started[index.cpu()] = True

    def keep(self, index: Tensor | None, values: Values) -> None:
        """Make ``values`` those of these rows, which have some."""
        for name, value in values.items():
            kept = self.values[name] = self.values[name].to(value)
            if index is None:
                kept.copy_(value)
            else:
                kept.index_copy_(self.dim, index.to(value.device), value)

    def state_dict(self) -> dict[str, Any]:
        """The values, and whose they are."""
        values = {name: value.clone() for name, value in self.values.items()}
        return {"values": values, "started": self.started.clone(), "dim": self.dim}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``.

        Raises:
            CheckpointError: it is of another number of rows.
        """
        if state["started"].shape != self.started.shape:
            expected, found = f"chains of {len(self.started)} rows", f"{len(state['started'])}"
            hint = "Pass the num_data that was trained with."
            raise CheckpointError(explain("saved chains", expected, found, hint))
        for name, value in state["values"].items():
            self.values.setdefault(name, value.clone()).copy_(value)
        self.started.copy_(state["started"])
        self.dim = state["dim"]

    def _room(self, value: Tensor) -> Tensor:
        """For all data, given the values of some."""
        shape = list(value.shape)
        shape[self.dim] = len(self.started)
        return value.new_zeros(shape)

    def _checked(self, index: Tensor) -> Tensor:
        beyond = (index < 0) | (index >= len(self.started))
        if bool(beyond.any()):
            expected, found = f"rows 0 to {len(self.started) - 1}", f"{int(index[beyond][0])}"
            raise DataError(explain("index", expected, found, "Pass num_data, the rows in all."))
        return index


class StartingAt(Messenger):
    """Puts given values in the place of the first of the particles that a guide draws."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        first = self.values.get(msg["name"])
        if first is not None:
            msg["value"] = torch.cat([first.to(msg["value"]), msg["value"][len(first) :]])
