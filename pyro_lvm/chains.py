"""Gibbs chains over the missing entries of rows: kept from step to step, or run anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import CheckpointError, DataError, ProgramError, explain
from pyro_lvm.nn import as_batch, check_size

__all__ = ["Chains", "conditionals_of", "gibbs_chains", "moved", "random_scan"]

Conditionals = Callable[[Tensor, Tensor], Any]
"""From rows ``(*, D)`` and a column ``(*,)`` of each to the distribution of that entry."""


class Chains:
    """K completions of each of N rows, the states of Gibbs chains, looked up by row number.

    They start from draws of each column's observed entries, independent of all else. They
    follow the device and dtype of the rows they are looked up for.

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
        self.values = filled.unflatten(0, (len(rows), num_chains))

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
            DataError: a number beyond the chains, or rows that are not those of that number.
        """
        beyond = (index < 0) | (index >= self.num_rows)
        if bool(beyond.any()):
            found = f"{int(index[beyond][0])}"
            hint = "Make the chains of all rows, and pass torch.arange(len(x)) beside x."
            raise DataError(explain("index", f"rows 0 to {self.num_rows - 1}", found, hint))
        self.values = self.values.to(x)
        rows = self.values[index]
        _check_same(x, rows[:, 0], index)
        return rows.movedim(1, 0)

    def keep(self, index: Tensor, rows: Tensor) -> None:
        """Make ``(K, B, D)`` the states of the rows ``index``; what is not finite is left."""
        new, old = rows.detach().movedim(0, 1), self.values[index]
        self.values[index] = torch.where(new.isfinite(), new, old)

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
        self.values = values.clone()


def gibbs_chains(
    guide: Any,
    x: Any,
    num_chains: int = 4,
    num_draws: int = 100,
    *,
    burn_in: int = 20,
    thinning: int = 1,
) -> Tensor:
    """Draw the missing entries of rows by Gibbs sampling from a guide's own conditionals.

    A sweep updates every missing entry of a row once, in an order of its own. The first one
    fills the holes as it goes: an entry not yet drawn is hidden from the conditionals of the
    others, so that a row's chains depend on that row alone. A row with nothing observed gets
    draws of what the conditionals hold for typical rows.

    Dims are those of ArviZ, ``az.convert_to_inference_data({"x": chains.numpy()})``: its R-hat
    and ESS say whether chains are long enough, never whether the conditionals are right.

    Args:
        guide: with ``conditionals``, such as :class:`~pyro_lvm.guides.GibbsGuide`.
        x: rows ``(N, D)``, NaN where missing.
        num_chains: independent chains a row.
        num_draws: states kept of each.
        burn_in: sweeps up to the first of them.
        thinning: sweeps from one to the next.

    Returns:
        ``(num_chains, num_draws, N, D)`` completed rows; observed entries are the data's.

    Raises:
        ProgramError: a guide without conditionals, a count below 1.
        DataError: rows of another number of columns, or classes that are not known.

    Example:
        >>> from pyro_lvm.guides import GibbsConditionals, GibbsGuide
        >>> x = torch.tensor([[0.0, float("nan")], [float("nan"), 5.0]])
        >>> gibbs_chains(GibbsGuide(GibbsConditionals(2)), x, num_chains=3, num_draws=7).shape
        torch.Size([3, 7, 2, 2])
    """
    counts = {"num_draws": num_draws, "burn_in": burn_in, "thinning": thinning}
    for name, count in {"num_chains": num_chains, **counts}.items():
        check_size(name, count)
    conditionals = conditionals_of(guide)
    x = as_batch(x, conditionals.in_features, like=conditionals.head.bias)
    conditionals.check(x)
    draws = x.expand(num_chains, num_draws, *x.shape).clone()
    holed = x.isnan().any(-1)
    rows = x[holed].expand(num_chains, -1, -1)
    missing = rows.isnan()
    for draw in range(num_draws):
        for _ in range(thinning if draw else burn_in):
            rows = sweep(conditionals, rows, missing)
        draws[:, draw, holed] = rows
    return draws


def sweep(conditionals: Conditionals, rows: Tensor, missing: Tensor) -> Tensor:
    """Rows ``(*, D)`` after an update of each entry in ``missing``, none of them differentiable."""
    longest = int(missing.sum(-1).max()) if missing.numel() else 0
    return moved(conditionals, rows, random_scan(missing, longest))


@torch.no_grad()
def moved(conditionals: Conditionals, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows ``(*, D)`` after one Gibbs update for each of ``columns`` ``(steps, *)``, in turn."""
    for column in columns:
        draw = conditionals(rows, column).sample()
        rows = rows.scatter(-1, column.unsqueeze(-1), draw.unsqueeze(-1).to(rows))
    return rows


def random_scan(missing: Tensor, num_steps: int) -> Tensor:
    """Columns to visit, ``(num_steps, *)``, of those that ``missing`` ``(*, D)`` marks.

    Each row has a random order of its own; it starts again where it has fewer. A row without
    any gets arbitrary ones.

    Example:
        >>> random_scan(torch.tensor([[True, False, True], [False, True, False]]), 4)
        tensor([[0, 1],
                [2, 1],
                [0, 1],
                [2, 1]])
    """
    noise = torch.rand(missing.shape, device=missing.device).masked_fill(~missing, -1.0)
    order = noise.topk(min(num_steps, missing.shape[-1]), -1).indices
    count = missing.sum(-1, keepdim=True).clamp(min=1)
    steps = torch.arange(num_steps, device=missing.device)
    return order.gather(-1, steps % count).movedim(-1, 0)


def conditionals_of(guide: Any) -> Any:
    """The guide's conditionals.

    Raises:
        ProgramError: it has none.
    """
    conditionals = getattr(guide, "conditionals", None)
    if conditionals is None:
        hint = "Pass GibbsGuide(GibbsConditionals(D), posterior), your guide as its posterior."
        found = f"a {type(guide).__name__} without"
        raise ProgramError(explain("guide", "one with conditionals", found, hint))
    return conditionals


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


def _check_same(x: Tensor, kept: Tensor, index: Tensor) -> None:
    other = ((x != kept) & ~x.isnan()).any(-1)
    if bool(other.any()):
        place = int(other.nonzero()[0])
        hint = "Pass torch.arange(len(x)) beside x, before anything shuffles, splits or scales it."
        found = f"other observed entries in row {place} of the batch"
        raise DataError(explain("index", f"row {int(index[place])} of the chains", found, hint))
