"""Traces around a mean: noise that may grow with it, drift, and frames that are missing."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.distributions import LowRankNormal
from pyro_lvm.models.cell_parameters import CellParameters
from pyro_lvm.models.drift import drift_columns, remnant_column
from pyro_lvm.models.traces import as_traces
from pyro_lvm.nn import AtAnyRate, check_choice, check_positive
from pyro_lvm.nn.trace_encoder import noise_scale

__all__ = ["NOISE", "NoisyTraces"]

NOISE = ("constant", "growing")
"""Of one scale in all frames, or of one that grows with the fluorescence."""

_QUARTILE = 0.6745  # of a standard Normal


class NoisyTraces(AtAnyRate, CellParameters):
    r"""Base of models of traces: what surrounds the response f of a trace's spikes.

    .. math:: x_t = \beta + f_t + \sigma_t \epsilon_t
        + \sum_k w_k \cos \tfrac{\pi k (t + 1/2)}{T} + w_0 e^{-t / \tau}

    The weights of the slow cosines, and of what is left of calcium from before the first frame,
    are Normal and integrated out exactly. The noise is white, :math:`\sigma_t = \sigma`, or
    grows, :math:`\sigma_t^2 = \sigma^2 + (\gamma f_t)^2`: no two transients have one shape, and
    what a model misses of a large one is not a spike.

    Args:
        rate: frames per second.
        num_cells: cells with parameters of their own; 1 is shared by all traces.
        noise: one of ``NOISE``.
        drift: has the slow parts.
        drift_period: seconds in which the fastest cosine completes a cycle.
    """

    remnant = "decay"  # the time constant of what is left from before the first frame
    row_shape: tuple[int, ...] = ()
    baseline: Tensor
    noise_scale: Tensor

    def __init__(
        self, rate: float | None, num_cells: int, noise: str, drift: bool, drift_period: float
    ) -> None:
        super().__init__(num_cells)
        check_choice("noise", noise, NOISE)
        self.rate = check_positive("rate", rate, "30.0")
        self.noise = noise
        self.drift = drift
        self.drift_period = check_positive("drift_period", drift_period, "20.0")
        self._learn({"baseline": 0.0, "noise_scale": 0.1})
        self._learn({"noise_gain": 0.2} if noise == "growing" else {})
        self._learn({"drift_scale": 0.02, "remnant_scale": 0.1} if drift else {})

    def start_at(self, x: Any) -> None:
        """Start baseline and noise at those of traces ``(num_cells, T)``, one of each cell.

        The noise is that of the steps between frames; the baseline is the lower quartile, which
        transients hardly touch, raised by what lies between a Normal's quartile and its mean.
        Parameters that are shared start at the mean over the traces.

        Raises:
            DataError: there is not one trace of each cell.
        """
        values, observed = as_traces(x, self.row_shape, self.baseline)
        self.cells(None, len(values))
        values = torch.where(observed, values, torch.nan)
        noise = noise_scale(values)
        lower = torch.where(values <= values.nanmedian(-1, keepdim=True).values, values, torch.nan)
        baseline = lower.nanmedian(-1, keepdim=True).values + _QUARTILE * noise
        self._start("noise_scale", noise.squeeze(-1))
        self._start("baseline", baseline.squeeze(-1))

    def _around(
        self, response: Tensor, cell: Tensor | None, observed: Tensor | None
    ) -> TorchDistribution:
        """The distribution of traces whose response is ``(*, B, *row_shape, T)``."""
        loc = self._row("baseline", cell) + response
        scale = self._noise_scale(response, cell)
        if self.drift:
            columns = self._slow_columns(loc.shape[-1], cell)
            return LowRankNormal(loc, scale, columns, observed)
        white: TorchDistribution = dist.Normal(loc, scale)
        return white if observed is None else white.mask(observed)

    def _noise_scale(self, response: Tensor, cell: Tensor | None) -> Tensor:
        scale = self._row("noise_scale", cell)
        if self.noise == "constant":
            return scale
        return torch.hypot(scale, self._row("noise_gain", cell) * response)

    def _slow_columns(self, num_frames: int, cell: Tensor | None) -> Tensor:  # (B, T, R)
        drift = drift_columns(num_frames, self.rate, self.drift_period, like=self.baseline)
        left = remnant_column(num_frames, self.rate, self._row(self.remnant, cell))
        slow = self._row("drift_scale", cell).unsqueeze(-1) * drift
        return torch.cat([slow, self._row("remnant_scale", cell).unsqueeze(-1) * left], -1)
