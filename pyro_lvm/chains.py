"""Gibbs sampling of the missing entries of rows, from amortised conditionals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_size

__all__ = [
    "conditionals_of",
    "drawn_anew",
    "gibbs_chains",
    "moved",
    "observed_score",
    "random_scan",
    "sweep",
]

Conditionals = Callable[[Tensor, Tensor], Any]
"""From rows ``(*, D)`` and a column ``(*,)`` of each to the distribution of that entry."""


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
    x = conditionals.rows(x)
    draws: Tensor = x.expand(num_chains, num_draws, *x.shape).clone()
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
def moved(conditionals: Conditionals, rows: Tensor, columns: Tensor, block_size: int = 1) -> Tensor:
    """Rows ``(*, D)`` after Gibbs updates of ``columns`` ``(steps, *)``, in turn or in blocks."""
    for block in columns.split(block_size):
        rows = _filled(rows, block, _block_of(conditionals, rows, block).sample())
    return rows


def _block_of(conditionals: Conditionals, rows: Tensor, block: Tensor) -> Any:
    """Distribution of the entries at ``block`` ``(b, *)`` given all others of ``rows``."""
    hidden = rows.scatter(-1, block.movedim(0, -1), torch.nan) if len(block) > 1 else rows
    return conditionals(hidden.expand(len(block), *rows.shape), block)


def _filled(rows: Tensor, block: Tensor, draws: Tensor) -> Tensor:
    """Rows ``(*, D)`` with ``draws`` ``(b, *)`` at ``block``; of a column twice, the first."""
    for column, draw in zip(block.flip(0), draws.flip(0), strict=True):
        rows = rows.scatter(-1, column.unsqueeze(-1), draw.unsqueeze(-1).to(rows))
    return rows


def _is_first(block: Tensor) -> Tensor:
    """Where a column of ``block`` ``(b, *)`` is not one that stands before it."""
    earlier = block.unsqueeze(0) == block.unsqueeze(1)  # (b, b, *)
    before = torch.ones(len(block), len(block), device=block.device).tril(-1).bool()
    return ~(earlier & before.reshape(*before.shape, *[1] * (block.dim() - 1))).any(1)


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


def drawn_anew(
    conditionals: Any, states: Tensor, missing: Tensor, num_targets: int, block_size: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(C, M, D)`` with a block of the missing entries ``(K, M, D)`` of each drawn anew; its
    log q ``(C, M)``; that of classes alone.

    A row with fewer missing entries than a block has gives all of them; a complete one stays.
    """
    rows, holes = states.repeat(num_targets, 1, 1), missing.repeat(num_targets, 1, 1)
    scan = random_scan(missing, num_targets * block_size)
    block = scan.unflatten(0, (num_targets, block_size)).transpose(0, 1).flatten(1, 2)
    q = _block_of(conditionals, rows, block)  # of block (b, C, M)
    draws = q.rsample()
    log_q = torch.where(_is_first(block) & holes.any(-1), q.log_prob(draws), 0.0)
    of_classes = torch.where(conditionals.num_classes[block] > 0, log_q, 0.0)
    filled = torch.where(holes, _filled(rows, block, draws), rows)
    return filled, log_q.sum(0), of_classes.sum(0)


def observed_score(conditionals: Any, states: Tensor, missing: Tensor) -> Tensor:  # (K, B)
    """log q of one observed entry of each row of ``states`` ``(K, B, D)``."""
    (column,) = random_scan(~missing.expand(len(states), -1, -1), 1)
    entry = states.gather(-1, column.unsqueeze(-1)).squeeze(-1)
    log_q: Tensor = conditionals(states, column).log_prob(entry)
    return log_q
