"""Traces and spike counts on another grid of frames."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.data.traces import Traces, check_rate
from pyro_lvm.errors import DataError, explain

__all__ = ["frame_counts", "rebin", "resample"]

_ROUNDING = 1e-6
"""Frames by which an edge may miss a frame's end and still count as on it."""


def rebin(values: Tensor, ratio: float, *, mean: bool = False) -> Tensor:
    """Sums, or means, over bins of ``ratio`` frames each; ``ratio`` need not be whole.

    A frame that two bins share is shared out by time, so that nothing is lost or counted
    twice. Frames after the last whole bin are left out.

    Args:
        values: ``(*batch, frames)``, NaN = unobserved.
        ratio: old frames in a bin, at least 1.
        mean: the mean over what a bin has of observed time, NaN where that is less than half
            of it; otherwise the sum, NaN where any of it is unobserved.

    Returns:
        ``(*batch, bins)``

    Raises:
        DataError: a bin is shorter than a frame, or longer than all of them.

    Example:
        >>> rebin(torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0]), 2.5)
        tensor([2., 3.])
    """
    bins = floor(values.shape[-1] / ratio + _ROUNDING)
    if ratio < 1 - _ROUNDING or bins < 1:
        expected = f"bins of 1 to {values.shape[-1]} frames"
        hint = "Take wider bins, or fewer frames a bin for a short trace."
        raise DataError(explain("bin width", expected, f"{ratio:g} frames", hint))
    edges = torch.arange(bins + 1, dtype=torch.float64, device=values.device) * ratio
    sums = _shares(values.nan_to_num(), edges)
    covered = _shares((~values.isnan()).to(sums), edges)
    if mean:
        sums = (sums / covered).where(covered >= ratio / 2, torch.nan)
    else:
        sums = sums.where(covered >= ratio - _ROUNDING, torch.nan)
    return sums.to(values.dtype)


def _shares(values: Tensor, edges: Tensor) -> Tensor:
    """Integral of a step function between neighbouring edges, in frames."""
    values = values.double()
    total = pad(values.cumsum(-1), (1, 0))
    index = edges.floor().long().clamp(max=values.shape[-1])
    return (total[..., index] + (edges - index) * pad(values, (0, 1))[..., index]).diff()


def resample(traces: Traces, rate: float) -> Traces:
    """The same recording at another frame rate.

    To a lower rate, a new frame is the mean of the time that it covers, as a slower camera
    would see it: white noise of standard deviation s becomes nearly white noise of
    ``s * sqrt(rate / traces.rate)``. To a higher rate, each old frame is put where its middle
    falls and the new frames between are unobserved (NaN): interpolated values would be
    smooth, and a model of independent noise would take that smoothness for certainty.
    Spikes keep their number: those of an old frame go to the new frame of its middle.

    Args:
        traces: the recording.
        rate: new frames a second, Hz.

    Raises:
        DataError: a rate that is not positive, or less than two frames in the recording.

    Example:
        >>> slow = resample(Traces(torch.tensor([[0.0, 2.0, 4.0, 8.0]]), 4.0), 2.0)
        >>> slow.x
        tensor([[1., 6.]])
        >>> resample(slow, 4.0).x
        tensor([[nan, 1., nan, 6.]])
    """
    check_rate(rate)
    frames = floor(traces.x.shape[1] / traces.rate * rate + _ROUNDING)
    old = torch.arange(traces.x.shape[1], dtype=torch.float64, device=traces.x.device)
    place = ((old + 0.5) * rate / traces.rate).long().clamp(max=frames)  # the last is cut off
    if rate > traces.rate:
        x = _put(traces.x, place, frames)
    else:
        x = rebin(traces.x, traces.rate / rate, mean=True)
    spikes = None if traces.spikes is None else _add(traces.spikes, place, frames)
    return replace(traces, x=x, rate=rate, spikes=spikes)


def _put(values: Tensor, place: Tensor, frames: int) -> Tensor:
    empty = values.new_full((len(values), frames + 1), torch.nan)
    return empty.index_copy(1, place, values)[:, :frames]


def _add(values: Tensor, place: Tensor, frames: int) -> Tensor:
    return values.new_zeros(len(values), frames + 1).index_add(1, place, values)[:, :frames]


def frame_counts(times: Tensor, rate: float, frames: int) -> Tensor:  # (frames,)
    """Number of spikes in each frame.

    Args:
        times: ``(spikes,)`` since the first frame began, s; those outside are left out.
        rate: frames a second, Hz.
        frames: how many.

    Example:
        >>> frame_counts(torch.tensor([0.1, 0.9, 0.95, 7.0]), rate=2.0, frames=3)
        tensor([1., 2., 0.])
    """
    index = (times * rate).floor().long()
    return index[(index >= 0) & (index < frames)].bincount(minlength=frames).to(times.dtype)
