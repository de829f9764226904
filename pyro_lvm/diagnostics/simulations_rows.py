"""From values of latents, the truth among them, to ranks: one simulation a datum of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Plated

__all__ = ["ROUNDING", "by_simulation", "distances", "ranks"]

ROUNDING = 16
"""Units of the last place by which sums of log-densities of equal values may differ."""


def by_simulation(latents: Mapping[str, Plated], batch: Sequence[str]) -> dict[str, Tensor]:
    """Latents as ``(K, simulations, *event)``.

    Args:
        latents: by site.
        batch: plates whose data are simulations of their own. Of any other plate each
            simulation takes one place, drawn at random, the same in all sites.
    """
    sizes = {
        plate: size
        for plates, values in latents.values()
        for plate, size in zip(plates, values.shape[1:], strict=False)
    }
    count = torch.Size(sizes[plate] for plate in batch).numel()
    device = next(iter(latents.values())).values.device
    places = {
        plate: torch.randint(size, (count,), device=device)
        for plate, size in sizes.items()
        if plate not in batch
    }
    return {name: _in_rows(draws, batch, places) for name, draws in latents.items()}


def _in_rows(draws: Plated, batch: Sequence[str], places: Mapping[str, Tensor]) -> Tensor:
    plates, values = draws
    inner = [plate for plate in plates if plate not in batch]
    order = [1 + plates.index(plate) for plate in (*batch, *inner)]
    rows = values.movedim(order, [*range(1, 1 + len(order))])
    rows = rows.flatten(1, len(batch)) if batch else rows[:, None]
    for plate in inner:
        rows = _at(rows, places[plate])
    return rows


def _at(rows: Tensor, places: Tensor) -> Tensor:
    """Of ``(K, simulations, places, ...)`` the place of each simulation."""
    return rows[:, torch.arange(len(places), device=rows.device), places]


def ranks(values: Tensor, rounding: int = 0) -> Tensor:  # (simulations, *event)
    """How many draws ``values[1:]`` are below the truth ``values[0]``; ties at random.

    Numbers up to ``rounding`` units of the truth's last place apart are tied.
    """
    truth, draws = values[0].double(), values[1:].double()
    unit = torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
    gap, least = draws - truth, rounding * unit * truth.abs()
    below, tied = (gap < -least).sum(0), (gap.abs() <= least).sum(0)
    chance = torch.rand(below.shape, device=below.device, dtype=torch.float64)
    return below + (chance * (tied + 1)).long()


def distances(latents: Iterable[Tensor], reference: Iterable[Tensor]) -> Tensor:
    """``(K, simulations)`` of all latents to a reference, each scalar in units of its spread.

    The spread is over all K values, so that it does not tell the truth from the draws.

    Args:
        latents: by site ``(K, simulations, *event)``, the truth and the draws.
        reference: by site ``(1, simulations, *event)``.
    """
    values, origin = (_flat(parts) for parts in (latents, reference))
    spread = values.std(0)
    units = spread.where(spread > 0, 1.0)
    return ((values - origin) / units).square().sum(-1).sqrt()


def _flat(latents: Iterable[Tensor]) -> Tensor:  # (K, simulations, scalars)
    flat = torch.cat([values.reshape(*values.shape[:2], -1) for values in latents], -1)
    return flat if flat.is_floating_point() else flat.to(torch.get_default_dtype())
