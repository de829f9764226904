"""Completions of rows that are kept from step to step: the states of Gibbs chains."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_lvm.errors import CheckpointError, DataError, explain
from pyro_lvm.nn import check_size

__all__ = ["Chains"]


class Chains:
    """K completions of each of N rows, the states of Gibbs chains, looked up by row number.

    They start from draws of each column's observed entries, independent of all else. They
    follow the device and dtype of the rows they are looked up for, and are changed in place.

    Args:
        x: the data ``(N, D)``, NaN where missing.
        num_chains: K.
        seed: of the start; the global random state stays as it was.

    Attributes:
        values: ``(N, K, D)``; observed entries are the data's.

    Raises:
        DataError: not a table of numbers, infinite entries, or a column without any observed
            entry, of which nothing could be learned.
        ProgramError: ``num_chains`` below 1.

    Example:
        >>> x = torch.tensor([[0.0, float("nan")], [1.0, 5.0], [2.0, 7.0]])
        >>> chains = Chains(x, num_chains=4)
        >>> chains.values[0]
        tensor([[0., 7.],
                [0., 7.],
                [0., 7.],
                [0., 5.]])
    """

    def __init__(self, x: Any, num_chains: int = 5, *, seed: int = 0) -> None:
        rows = torch.as_tensor(x).detach()
        rows = rows if rows.is_floating_point() else rows.to(torch.get_default_dtype())
        _check_table(rows)
        repeated = rows.repeat_interleave(check_size("num_chains", num_chains), 0)
        filled = torch.where(repeated.isnan(), _column_draws(rows, len(repeated), seed), repeated)
        self.values: Tensor = filled.unflatten(0, (len(rows), num_chains))

    def __repr__(self) -> str:
        return f"Chains({self.num_rows} rows, num_chains={self.num_chains})"

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.values)

    @property
    def num_chains(self) -> int:
        """K."""
        return self.values.shape[1]

    def completed(self, x: Tensor, index: Tensor) -> Tensor:
        """The rows ``x`` ``(B, D)``, numbers ``index`` ``(B,)``, completed: ``(K, B, D)``.

        Raises:
            DataError: a number beyond the chains, or rows that are not those of that number;
                looked for while Pyro's validation is on.
        """
        is_checked = is_validation_enabled()
        if is_checked:
            _check_known(index, self.num_rows)
        self.values = self.values.to(x)
        rows = self.values[index]
        if is_checked:
            _check_same(x, rows[:, 0], index)
        return rows.movedim(1, 0)

    def keep(self, index: Tensor, rows: Tensor) -> None:
        """Make ``(K, B, D)`` the states of the rows ``index``; what is not finite is left."""
        new, old = rows.detach().movedim(0, 1), self.values[index]
        self.values.index_copy_(0, index, torch.where(new.isfinite(), new, old))

    def state_dict(self) -> dict[str, Tensor]:
        """The states."""
        return {"values": self.values.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state``.

        Raises:
            CheckpointError: it is of other rows or another number of chains.
        """
        values = state["values"]
        if values.shape != self.values.shape:
            expected = f"(rows, chains, columns) of {tuple(self.values.shape)}"
            hint = "Make the chains of the data that were trained on, with the same num_chains."
            found = f"{tuple(values.shape)}"
            raise CheckpointError(explain("saved chains", expected, found, hint))
        self.values.copy_(values)


def _column_draws(x: Tensor, count: int, seed: int) -> Tensor:  # (count, D)
    """Of each column, independent draws of its observed entries."""
    missing = x.isnan()
    observed_first = missing.to(torch.uint8).argsort(stable=True, dim=0)
    entries = x.gather(0, observed_first)
    generator = torch.Generator("cpu").manual_seed(seed)
    uniform = torch.rand(
        count, x.shape[1], generator=generator, dtype=torch.float64, device="cpu"
    ).to(x.device)
    return entries.gather(0, (uniform * (~missing).sum(0)).long())


def _check_table(x: Tensor) -> None:
    if x.dim() != 2 or 0 in x.shape:
        hint = "Pass one row a datum; x.flatten(1) makes rows of pictures."
        raise DataError(explain("x", "shape (rows, columns)", f"{tuple(x.shape)}", hint))
    if bool(x.isinf().any()):
        hint = "Set them to NaN, or correct them."
        found = f"infinite entries, first at {x.isinf().nonzero()[0].tolist()}"
        raise DataError(explain("x", "finite numbers and NaN", found, hint))
    empty = x.isnan().all(0)
    if bool(empty.any()):
        column = int(empty.nonzero()[0])
        hint = "Drop columns that were never observed: nothing can be learned of them."
        raise DataError(explain(f"column {column} of x", "observed entries", "none", hint))


def _check_known(index: Tensor, num_rows: int) -> None:
    beyond = (index < 0) | (index >= num_rows)
    if bool(beyond.any()):
        found = f"{int(index[beyond][0])}"
        hint = "Make the chains of all rows, and pass torch.arange(len(x)) beside x."
        raise DataError(explain("index", f"rows 0 to {num_rows - 1}", found, hint))


def _check_same(x: Tensor, kept: Tensor, index: Tensor) -> None:
    other = ((x != kept) & ~x.isnan()).any(-1)
    if bool(other.any()):
        place = int(other.nonzero()[0])
        hint = "Pass torch.arange(len(x)) beside x, before anything shuffles, splits or scales it."
        found = f"other observed entries in row {place} of the batch"
        raise DataError(explain("index", f"row {int(index[place])} of the chains", found, hint))
