"""Discriminator of relaxed spike trains, given the traces that they explain or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import check_positive, check_size
from pyro_lvm.nn.networks import MLP, widen
from pyro_lvm.nn.over_time import OverTime
from pyro_lvm.nn.trace_encoder import TraceEncoder

__all__ = ["TraceDiscriminator"]

_EDGE = 1e-6  # what is nearer to 0 or 1 counts as being there
_SMALL = 0.01  # of the last layer's usual start: logits near 0, with a gradient everywhere


class TraceDiscriminator(nn.Module):
    r"""Log-ratio of two densities of relaxed spike trains, as a sum over frames.

    .. math:: T(x, z) = \sum_t f(z_{t-w}, \dots, z_{t+w}, h_t(x))

    where f is a network of two convolutions, that reads the spikes and their log-odds, and h is
    an encoder of the trace, which runs once a trace. A sum over frames is what the log-ratio of
    two distributions is whose frames depend on each other over a short time, such as that of
    an ``"implicit"`` :class:`~pyro_lvm.guides.SpikeGuide` to independent spikes. Logits start
    near 0.

    Args:
        encoder: reads the traces; a new :class:`~pyro_lvm.nn.TraceEncoder` if left out.
        rate: frames per second.
        hidden: size of both layers of f.
        width: of their filters, frames, odd.

    Raises:
        ProgramError: a size below 1, a rate of 0 or less, trains and traces of different length.

    Example:
        >>> T = TraceDiscriminator(rate=30.0)
        >>> T(torch.rand(7, 5, 100), torch.randn(5, 100)).shape  # 7 draws for each of 5 traces
        torch.Size([7, 5])
    """

    def __init__(
        self,
        encoder: TraceEncoder | None = None,
        *,
        rate: float = 60.0,
        hidden: int = 32,
        width: int = 11,
    ) -> None:
        super().__init__()
        self.rate = check_positive("rate", rate, "30.0")
        size = check_size("hidden", hidden)
        self.encoder = encoder or TraceEncoder()
        self.entry = MLP(self.encoder.out_features, size, hidden=())
        self.first, self.second = OverTime(2, size, width), OverTime(size, size, width)
        self.readout = nn.Linear(size, 1)
        with torch.no_grad():
            self.readout.weight.mul_(_SMALL)
            self.readout.bias.zero_()

    def forward(self, z: Tensor, context: Any = None) -> Tensor:
        """Logits ``(K?, *plates)`` of trains ``(K?, *plates, T)``, float32 or wider.

        Args:
            z: spikes from 0 to 1.
            context: traces ``(*plates, T)``, NaN where not observed; None for the trains alone.
        """
        odds = z.clamp(_EDGE, 1 - _EDGE).logit()
        a = self.first(torch.stack([z, 0.1 * odds], -1))
        if context is not None:
            a = a + self._given(context, z.shape[-1])
        frames = widen(self.readout(elu(self.second(elu(a)))))
        return frames.sum((-1, -2))

    def _given(self, context: Any, num_frames: int) -> Tensor:  # (*plates, T, hidden)
        traces = torch.as_tensor(context).to(self.readout.weight)
        if traces.shape[-1] != num_frames:
            expected = f"{num_frames} frames, as the trains have"
            hint = "Pass context= to the objective, a function from its data to the traces."
            found = f"shape {tuple(traces.shape)}"
            raise ProgramError(explain("context of a discriminator", expected, found, hint))
        given: Tensor = self.entry(self.encoder(traces, self.rate))
        return given
