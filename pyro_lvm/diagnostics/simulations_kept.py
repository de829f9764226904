"""Simulations that a file keeps, so that an interrupted run goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import monotonic

import torch

from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.errors import CheckpointError, explain
from pyro_lvm.training.checkpoint import read, write

__all__ = ["KeptSimulations"]

_KIND = "simulations"
_SECONDS = 5.0  # between two writes


class KeptSimulations:
    """Simulations of one data set after the other.

    Args:
        path: the file, read if it is there; None to keep nothing.
        seed: of all data sets; that of the file, or a fresh one, if None.

    Attributes:
        num_sets: how many data sets are done.
        seed: in use.

    Raises:
        CheckpointError: the file is damaged, or of another seed.
    """

    def __init__(self, path: str | Path | None, seed: int | None) -> None:
        self.path = None if path is None else Path(path)
        content = read(self.path, _KIND) if self.path and self.path.exists() else {}
        self.parts = [Simulations(**content["simulations"])] if content else []
        self.num_sets = content.get("num_sets", 0)
        wanted = content.get("seed", seed)
        self.seed = int(torch.randint(2**31, ())) if wanted is None else int(wanted)
        if seed not in (None, self.seed):
            raise self._foreign(f"seed {self.seed}, not {seed}")
        self._written = monotonic()

    def check(self, first: Simulations) -> None:
        """Raise if the first data set kept is not ``first``: then the others are foreign too."""
        if not self.parts[0].first(first.num_simulations).equals(first):
            raise self._foreign("those of another model, guide, data or number of draws")

    def add(self, simulations: Simulations) -> None:
        """Append those of the next data set."""
        self.parts.append(simulations)
        self.num_sets += 1
        if monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file, if there is one and anything to be kept."""
        if self.path and self.parts:
            content = {"simulations": asdict(self.all()), "num_sets": self.num_sets}
            write(self.path, _KIND, {**content, "seed": self.seed})
            self._written = monotonic()

    def all(self) -> Simulations:
        """Of all data sets, as one."""
        self.parts = [Simulations.joined(self.parts)]
        return self.parts[0]

    def _foreign(self, found: str) -> CheckpointError:
        expected = "the simulations of this call"
        hint = "Pass another path, or delete the file."
        return CheckpointError(explain(f"file {self.path}", expected, found, hint))
