"""Convolutional encoder of fluorescence traces, for any number of frames and any frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn.arguments import check_positive, check_size
from pyro_lvm.nn.networks import widen
from pyro_lvm.nn.over_time import check_odd

__all__ = ["TraceEncoder", "noise_scale"]

_SLOPE = 0.2  # of leaky rectifiers where the input is below 0
_PER_MEDIAN = 1.0483  # of |a - b| / sd, for a and b Normal and independent: 1 / (0.6745 * 2**0.5)
_REFERENCE = 60.0, 0.1  # rate in Hz and noise level in dF/F at which their channels are 0


class TraceEncoder(nn.Module):
    r"""Fluorescence traces to features of every frame, by convolutions over time.

    The network reads four numbers a frame: the trace less its median, in units of its noise
    level; 1 where the frame is observed, 0 where it is NaN or beyond the end; the log of the
    noise level; and the log of the frame rate. One encoder so serves recordings of any rate,
    if it was trained on such rates: nothing is resampled.

    References:
        Speiser, Yan, Archer, Buesing, Turaga, Macke (2017), *Fast amortized inference of neural
        activity from calcium imaging data with variational autoencoders*, arXiv:1711.01846, for
        the sizes of the convolutions.
        Rupprecht et al. (2021), *A database and deep learning toolbox for noise-optimized,
        generalized spike inference from calcium imaging*, Nature Neuroscience 24, 1324, for a
        network that knows the noise level.

    Args:
        channels: of each layer.
        widths: of each layer's filter, frames, odd.
        recurrent_features: size of the states, in each direction, of a GRU after the
            convolutions; None for none.
        noise: standard deviation of a frame's noise, where it is known, in the trace's units;
            traces are then not centred either. By default it is estimated for each trace, see
            :func:`noise_scale`.

    Raises:
        ProgramError: a size below 1, an even width, another number of widths than of channels,
            a rate or noise that is not above 0.
        DataError: traces of another shape, or without frames.

    Example:
        >>> encoder = TraceEncoder(channels=(8, 6), widths=(5, 3))
        >>> encoder(torch.zeros(4, 100), rate=30.0).shape
        torch.Size([4, 100, 6])
    """

    def __init__(
        self,
        channels: Sequence[int] = (30, 25, 25, 20, 15),
        widths: Sequence[int] = (31, 21, 21, 13, 11),
        *,
        recurrent_features: int | None = None,
        noise: float | None = None,
    ) -> None:
        super().__init__()
        _check_layers(channels, widths)
        counts = [4, *(check_size("channels", count) for count in channels)]
        layers = [
            nn.Conv1d(before, after, width, padding=check_odd("widths", width) // 2)
            for (before, after), width in zip(pairwise(counts), widths, strict=True)
        ]
        self.layers = nn.ModuleList(layers)
        self.noise = None if noise is None else check_positive("noise", noise, "0.1")
        self.gru: nn.GRU | None = None
        self.out_features = counts[-1]
        if recurrent_features is not None:
            size = check_size("recurrent_features", recurrent_features)
            self.gru = nn.GRU(counts[-1], size, batch_first=True, bidirectional=True)
            self.out_features = 2 * size

    def forward(self, x: Any, rate: float) -> Tensor:
        """Features ``(B, T, out_features)``, float32 or wider.

        Args:
            x: traces ``(B, T)`` of dF/F; NaN where a frame is not observed.
            rate: frames per second.
        """
        features = self._read(_as_traces(x, next(self.parameters())), rate)
        for layer in self.layers:
            features = leaky_relu(layer(features), _SLOPE)
        features = features.mT
        return widen(features if self.gru is None else self.gru(features)[0])

    def _read(self, x: Tensor, rate: float) -> Tensor:  # (B, 4, T)
        log_rate = log(check_positive("rate", rate, "30.0") / _REFERENCE[0])
        noise = noise_scale(x) if self.noise is None else x.new_full((len(x), 1), self.noise)
        level = x.nanmedian(-1, keepdim=True).values if self.noise is None else 0.0
        observed = ~x.isnan()
        standard = torch.where(observed, (x - level) / noise, 0.0)
        log_noise = (noise / _REFERENCE[1]).log().expand_as(x)
        return torch.stack([standard, observed.to(x), log_noise, torch.full_like(x, log_rate)], 1)


def noise_scale(x: Tensor) -> Tensor:
    r"""Standard deviation of the noise of each trace, ``(*, T)`` to ``(*, 1)``, in its units.

    From the median of :math:`|x_{t+1} - x_t|`, which slow signals and rare transients leave as
    it is. Frames that are NaN are left out. Where half of all steps are 0, as in a trace that
    was cut off below, it is the standard deviation over time; 1 where that is 0 or unknown: for
    a constant trace, or a single frame. A trace that was smoothed has a noise level that is too
    low.

    References:
        Rupprecht et al. (2021), Nature Neuroscience 24, 1324, whose noise level :math:`\nu` is
        the same median over the root of the frame rate.

    Example:
        >>> x = 0.1 * torch.randn(2, 1000) + torch.tensor([[0.0], [5.0]])
        >>> noise_scale(x).round(decimals=2)
        tensor([[0.1000],
                [0.1000]])
    """
    steps = pad(x.diff().abs(), (1, 0), value=nan)
    robust = _PER_MEDIAN * steps.nanmedian(-1, keepdim=True).values
    deviation = (x - x.nanmean(-1, keepdim=True)).square().nanmean(-1, keepdim=True).sqrt()
    level = torch.where(robust > 0, robust, deviation)
    return torch.where(level > 0, level, 1.0)


def _as_traces(x: Any, like: Tensor) -> Tensor:
    traces = torch.as_tensor(x).to(like)
    if traces.dim() != 2 or not traces.numel():
        raise DataError(
            explain(
                "x",
                "traces of shape (cells, frames), at least one of each",
                f"shape {tuple(traces.shape)}",
                "x[None] makes one trace a batch; x.T puts cells before frames.",
            )
        )
    return traces


def _check_layers(channels: Sequence[int], widths: Sequence[int]) -> None:
    if not channels or len(channels) != len(widths):
        found = f"{len(channels)} channels and {len(widths)} widths"
        hint = "Pass channels=(30, 20), widths=(31, 11)."
        raise ProgramError(explain("widths", "one for each layer of channels", found, hint))
