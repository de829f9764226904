"""From raw fluorescence to dF/F, and how noisy that is."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt

import torch
from torch import Tensor

from pyro_lvm.data.traces import Traces
from pyro_lvm.errors import DataError, explain

__all__ = ["delta_f", "noise_level"]

_KNOTS = 8
"""Baselines taken a window; between them it is linear."""


def delta_f(traces: Traces, *, percentile: float = 8.0, window: float = 60.0) -> Traces:
    """dF/F, the change of raw fluorescence relative to a slowly moving baseline.

    The baseline of a cell is a percentile of its observed frames within ``window``, taken
    eight times a window and interpolated linearly. A percentile below the median leaves
    transients alone as long as they fill less than the rest of a window; it lies below the
    mean of the noise, which a model's own baseline makes up for.

    Args:
        traces: raw fluorescence, above 0 but for noise.
        percentile: of the frames of a window, 0 to 100.
        window: s; shortened to the recording.

    Raises:
        DataError: a baseline that is not above 0: these are dF/F already, or the background
            was subtracted.

    Example:
        >>> raw = Traces(torch.tensor([[100.0, 100.0, 150.0, 100.0]]), rate=1.0)
        >>> delta_f(raw).x
        tensor([[0.0000, 0.0000, 0.5000, 0.0000]])
    """
    if not 0 <= percentile <= 100:
        hint = "Pass percentile=8."
        raise DataError(explain("percentile", "from 0 to 100", str(percentile), hint))
    baseline = _baseline(traces.x, percentile / 100, round(window * traces.rate))
    low = (baseline <= 0).any(1).nonzero().flatten().tolist()
    if low:
        found = f"{baseline[low[0]].min():.3g} in cell {traces.names[low[0]]!r}"
        hint = "Pass raw fluorescence, or leave dF/F as it is."
        raise DataError(explain("baseline", "above 0", found, hint))
    return replace(traces, x=traces.x / baseline - 1)


def _baseline(x: Tensor, share: float, width: int) -> Tensor:  # (cells, frames)
    frames = x.shape[1]
    width = max(2, min(width, frames))
    knots = torch.linspace(0, frames - 1, 1 + ceil(frames * _KNOTS / width)).to(x)
    start = (knots - width / 2).round().long().clamp(0, frames - width).tolist()
    levels = [torch.nanquantile(x[:, s : s + width], share, dim=1) for s in start]
    return _between(torch.stack(levels, 1), knots, frames)


def _between(levels: Tensor, knots: Tensor, frames: int) -> Tensor:
    """Linear interpolation; a knot whose window has nothing observed takes its neighbour's."""
    levels = _filled(_filled(levels).flip(1)).flip(1)
    time = torch.arange(frames, dtype=levels.dtype, device=levels.device)
    right = torch.searchsorted(knots, time).clamp(1, len(knots) - 1)
    share = (time - knots[right - 1]) / (knots[right] - knots[right - 1])
    return torch.lerp(levels[:, right - 1], levels[:, right], share)


def _filled(levels: Tensor) -> Tensor:
    """Each NaN replaced by the last value before it that is none."""
    index = torch.arange(levels.shape[1], device=levels.device)
    known = index.where(~levels.isnan(), 0).cummax(1).values
    return levels.gather(1, known)


def noise_level(traces: Traces) -> Tensor:  # (cells,)
    r"""Noise of dF/F in % per square root of Hz, comparable between frame rates.

    .. math:: \nu = 100\, \mathrm{median}_t |x_{t+1} - x_t| / \sqrt{\mathrm{rate}}

    About 1 is very good, 3 to 4 decent, above 5 poor. White noise of standard deviation s has
    :math:`\nu = 95\, s / \sqrt{\mathrm{rate}}`. NaN where no two observed frames are
    neighbours. From Rupprecht et al. (2021), A database and deep learning toolbox for
    noise-optimized, generalized spike inference from calcium imaging, Nature Neuroscience 24,
    doi:10.1038/s41593-021-00895-5.

    Args:
        traces: dF/F, 1.0 = 100 %.

    Example:
        >>> noise_level(Traces(0.1 * torch.randn(1, 10000), rate=25.0)).round(decimals=1)
        tensor([1.9000])
    """
    median: Tensor = traces.x.diff(dim=1).abs().nanmedian(1).values
    return 100 * median / sqrt(traces.rate)
