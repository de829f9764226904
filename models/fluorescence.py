"""What models of one trace a cell share: spikes, noise and drift around its fluorescence."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_lvm.distributions import LowRankNormal
from pyro_lvm.models.calcium_dynamics import exponential_decay
from pyro_lvm.models.indicators import INDICATORS
from pyro_lvm.models.noisy_traces import NoisyTraces
from pyro_lvm.models.spike_priors import SPIKES, spike_prior
from pyro_lvm.models.traces import as_traces
from pyro_lvm.nn import check_choice, check_num_data, check_positive, check_size, data_plate, widen

__all__ = ["FluorescenceModel"]


class FluorescenceModel(NoisyTraces):
    r"""Base of models of traces: fluorescence that follows spikes, plus noise, plus drift.

    .. math:: x_t = \beta + f_t(s) + \sigma_t \epsilon_t
        + \sum_k w_k \cos \tfrac{\pi k (t + 1/2)}{T} + w_0 e^{-t / \tau}

    Sites "spikes" and "x", of event shape ``(T,)``, inside plate "data". Frames that are NaN are
    left out. What surrounds f is that of :class:`~pyro_lvm.models.noisy_traces.NoisyTraces`:
    noise, slow cosines with Normal weights, and what is left of calcium from before the first
    frame, integrated out exactly. Rates are per second and times in seconds, so a model learnt
    at one frame rate serves another, see :meth:`at`.

    Parameters, ``(num_cells,)`` each: ``firing_rate`` in Hz; ``baseline`` :math:`\beta`,
    ``noise_scale`` :math:`\sigma`, ``drift_scale`` and ``remnant_scale`` (of the two kinds of
    weights) in dF/F; ``noise_gain`` :math:`\gamma`, if noise grows; and those of f, which a
    subclass gives in ``response`` and starts from ``INDICATORS[indicator][kind]``.

    Args:
        rate: frames per second.
        indicator: "gcamp6f" or "gcamp6s".
        num_frames: T of the traces that are drawn where there are no data.
        num_cells: cells with parameters of their own; 1 is shared by all traces.
        spikes: "bernoulli", "poisson" or "relaxed", see
            :func:`~pyro_lvm.models.spike_priors.spike_prior`.
        temperature: of "relaxed".
        noise: "constant", or "growing" with the fluorescence.
        drift: has the slow parts.
        drift_period: seconds in which the fastest cosine completes a cycle.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: no frame rate, or none above 0; an unknown choice; a size below 1.
        DataError: ``x`` has another shape, or one frame; it is not known which cells they are.
    """

    kind: str

    def __init__(
        self,
        rate: float | None = None,
        indicator: str = "gcamp6f",
        *,
        num_frames: int = 300,
        num_cells: int = 1,
        spikes: str = "bernoulli",
        temperature: float = 0.5,
        noise: str = "constant",
        drift: bool = True,
        drift_period: float = 20.0,
        num_data: int | None = None,
    ) -> None:
        super().__init__(rate, num_cells, noise, drift, drift_period)
        check_choice("indicator", indicator, INDICATORS)
        check_choice("spikes", spikes, SPIKES)
        self.num_frames = check_size("num_frames", num_frames)
        self.spikes = spikes
        self.temperature = check_positive("temperature", temperature, "0.5")
        self.num_data = check_num_data(num_data)
        self._learn({"firing_rate": 1.0, **INDICATORS[indicator][self.kind]})

    def forward(self, x: Any = None, cell: Any = None, *, size: int = 1) -> Tensor:
        """Sites "spikes" and "x" inside plate "data"; returns the traces, 0 where NaN.

        Args:
            x: ``(B, T)`` dF/F, NaN where a frame is missing; None draws ``size`` traces from
                the prior predictive.
            cell: ``(B,)`` the cell of each trace; may be left out where cells share their
                parameters, or each has one trace, in order.
            size: number of traces to draw where ``x`` is None.
        """
        x, observed = (None, None) if x is None else as_traces(x, self.row_shape, self.baseline)
        rows = size if x is None else len(x)
        cell = self.cells(cell, rows)
        plate = data_plate(rows, None if x is None else self.num_data, like=self.baseline)
        with plate:
            prior = self.prior(self.num_frames if x is None else x.shape[-1], cell)
            trains = [pyro.sample(name, train) for name, train in prior.items()]
            traces = self.decode(*trains, cell=cell, observed=observed)
            drawn: Tensor = pyro.sample("x", traces, obs=x)
        return drawn

    def prior(self, num_frames: int, cell: Tensor | None = None) -> dict[str, TorchDistribution]:
        """The distribution of each site's train, event ``(num_frames,)``."""
        return {"spikes": self._train("firing_rate", num_frames, cell)}

    def decode(
        self, *trains: Tensor, cell: Tensor | None = None, observed: Tensor | None = None
    ) -> TorchDistribution:
        """The distribution of ``x`` given trains ``(*, B, T)``: batch ``(*, B)``.

        Args:
            trains: a value of each latent site.
            cell: ``(B,)`` as of ``forward``.
            observed: ``(B, T)``, True = observed; all frames are if left out.
        """
        noise = self._around(self._response(trains, cell), cell, observed)
        traces: TorchDistribution = noise.to_event(1 + len(self.row_shape) - noise.event_dim)
        return traces

    def fluorescence(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:  # (*, B, T)
        """dF/F without noise and drift."""
        return self._row("baseline", cell) + self._response(trains, cell)

    def denoised(self, x: Any, *trains: Tensor, cell: Tensor | None = None) -> Tensor:
        """dF/F without white noise, ``(*, B, T)``: with the drift that ``x`` and trains imply.

        Args:
            x: ``(B, T)`` dF/F, NaN where a frame is missing.
            trains: a value of each latent site, ``(*, B, T)``.
            cell: ``(B,)`` as of ``forward``.
        """
        values, observed = as_traces(x, self.row_shape, self.baseline)
        noise = self._around(self._response(trains, cell), cell, observed)
        return noise.denoised(values) if isinstance(noise, LowRankNormal) else noise.mean

    def calcium(self, spikes: Tensor, cell: Tensor | None = None) -> Tensor:
        """Free calcium above rest, ``(*, B, *row_shape, T)`` as the spikes, in units of a spike."""
        return exponential_decay(spikes, self._row("decay", cell), self.rate)

    @abstractmethod
    def response(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:  # (*, B, T)
        """dF/F that trains ``(*, B, T)`` cause, above the baseline."""

    def _train(self, name: str, num_frames: int, cell: Tensor | None) -> TorchDistribution:
        expected = self._row(name, cell) / self.rate
        return spike_prior(self.spikes, expected, num_frames, self.temperature)

    def _response(self, trains: tuple[Tensor, ...], cell: Tensor | None) -> Tensor:
        """In float32 or wider, whatever autocast made of the trains."""
        return self.response(*(widen(train) for train in trains), cell=cell)
