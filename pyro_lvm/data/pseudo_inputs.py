"""Rows of data to make a prior of, kept apart from those that are trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["pseudo_inputs"]


def pseudo_inputs(
    rows: Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """``count`` rows drawn without replacement, and all the others.

    For :class:`~pyro_lvm.distributions.VampPrior` with ``learn=False`` and
    :class:`~pyro_lvm.distributions.AggregatedPrior`, which make a prior of the guide's
    posteriors at rows of data. A datum among these rows finds its own posterior in its prior,
    as new data do not: train on the others.

    Args:
        rows: ``(N, D)`` data.
        count: C, from 1 to N - 1.
        generator: of any device, draws them; None is torch's own.

    Returns:
        ``(C, D)`` pseudo-inputs and the other ``(N - C, D)``, in the order that they had.

    Raises:
        DataError: ``count`` is out of range.

    Example:
        >>> rows = torch.arange(6.0)[:, None]
        >>> inputs, others = pseudo_inputs(rows, 2, torch.Generator().manual_seed(0))
        >>> inputs.flatten().tolist(), others.flatten().tolist()
        ([2.0, 5.0], [0.0, 1.0, 3.0, 4.0])
    """
    if not 0 < count < len(rows):
        expected = f"from 1 to {len(rows) - 1}"
        raise DataError(explain("count", expected, str(count), "Leave rows to train on."))
    where = None if generator is None else generator.device
    order = torch.randperm(len(rows), generator=generator, device=where).to(rows.device)
    drawn = torch.zeros_like(order, dtype=torch.bool).index_fill(0, order[:count], True)
    return rows[drawn], rows[~drawn]
