"""Spikes as events to be found: ranking of frames, and matching of spike times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.spikes import check_spikes

__all__ = ["spike_auc", "spike_average_precision", "spike_f1"]


def spike_auc(estimate: Tensor, truth: Tensor) -> Tensor:  # (cells,)
    """Area under the ROC curve: how often a frame with a spike ranks above one without.

    Args:
        estimate: ``(cells, frames)`` of any scale.
        truth: ``(cells, frames)`` true counts, NaN = unknown.

    Returns:
        0.5 by chance, NaN for cells without frames of both kinds.

    Example:
        >>> spike_auc(torch.tensor([[0.9, 0.2, 0.1, 0.4]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
        tensor([1.])
    """
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped] # slow to import

    return _by_cell(roc_auc_score, estimate, truth)


def spike_average_precision(estimate: Tensor, truth: Tensor) -> Tensor:  # (cells,)
    """Mean precision over the recall: the area under the precision-recall curve, by steps.

    Where spikes are rare it tells more than the ROC curve: chance is the share of frames with
    spikes, not 0.5.

    Args:
        estimate: ``(cells, frames)`` of any scale.
        truth: ``(cells, frames)`` true counts, NaN = unknown.

    Returns:
        NaN for cells without frames of both kinds.

    Example:
        >>> truth = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> spike_average_precision(torch.tensor([[0.9, 0.5, 0.1, 0.4]]), truth)  # (1 + 2/3) / 2
        tensor([0.8333])
    """
    from sklearn.metrics import average_precision_score

    return _by_cell(average_precision_score, estimate, truth)


def _by_cell(score: Callable[..., Any], estimate: Tensor, truth: Tensor) -> Tensor:
    check_spikes(estimate, truth)
    scores = []
    for values, counts in zip(estimate, truth, strict=True):
        known = ~counts.isnan()
        fired = counts[known] > 0
        defined = bool(fired.any()) and not bool(fired.all())
        scores.append(score(fired.cpu(), values[known].cpu()) if defined else torch.nan)
    return estimate.new_tensor(scores)


def spike_f1(
    estimate: Tensor, truth: Tensor, rate: float, *, tolerance: float = 0.05
) -> Tensor:  # (*draws, cells)
    """F1 score of spikes found within ``tolerance``; the error rate of MLspike is 1 less it.

    Inferred and true spikes are matched one to one, as many as can be. From Deneux et al.
    (2016), Accurate spike estimation from noisy calcium signals for ultrafast
    three-dimensional imaging of large neuronal populations in vivo, Nature Communications 7.

    Args:
        estimate: ``(*draws, cells, frames)`` whole counts, such as posterior draws.
        truth: ``(cells, frames)`` true counts, NaN = unknown; such frames are left out.
        rate: frames a second, Hz.
        tolerance: s between the middles of frames.

    Returns:
        ``2 * matched / (inferred + true)``, NaN where there is no spike on either side.

    Example:
        >>> truth = torch.tensor([[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]])
        >>> found = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
        >>> spike_f1(found, truth, rate=30.0)  # 2 matched of 2 inferred and 3 true
        tensor([0.8000])
    """
    check_spikes(estimate, truth)
    reach = int(tolerance * rate + 1e-6)
    estimate = estimate.where(~truth.isnan(), 0)
    flat = estimate.reshape(-1, *truth.shape)
    true = [_frames(counts.nan_to_num()) for counts in truth]
    matched = [[_matched(_frames(c), t, reach) for c, t in zip(draw, true)] for draw in flat]
    hits = estimate.new_tensor(matched).reshape(estimate.shape[:-1])
    return 2 * hits / (estimate.sum(-1) + truth.nansum(-1))


def _frames(counts: Tensor) -> list[int]:
    """The frame of each spike, in order."""
    frames = torch.arange(len(counts), device=counts.device)
    spikes: list[int] = frames.repeat_interleave(counts.round().long()).tolist()
    return spikes


def _matched(first: list[int], second: list[int], reach: int) -> int:
    """The most pairs, one to one, at most ``reach`` apart; pairing the earliest is best."""
    pairs = i = j = 0
    while i < len(first) and j < len(second):
        gap = first[i] - second[j]
        pairs += abs(gap) <= reach
        i += gap <= reach
        j += gap >= -reach
    return pairs
