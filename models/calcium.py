"""Calcium imaging of cells: fluorescence linear in the spikes, or by an indicator that binds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.models.calcium_dynamics import relaxation, rise_and_decay
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.models.indicators import INDICATORS
from pyro_lvm.models.spike_heights import spike_heights
from pyro_lvm.models.traces import as_traces

__all__ = ["LinearCalcium", "PhysiologicalCalcium", "SaturatingCalcium"]

_BEFORE = 0.15
"""Seconds before a transient that show the level it rises from."""


class LinearCalcium(FluorescenceModel):
    r"""Fluorescence that is a sum of transients, one for each spike.

    .. math:: f_t(s) = a \sum_{u \le t} s_u \, e^{-(t - u) / \tau}, \quad \text{or} \quad
        a \sum_{u \le t} s_u \, k(t - u), \; k(t) \propto (1 - e^{-t / \rho}) \, e^{-t / \tau}

    without and with ``rise``: the autoregressive models of order 1 (SCF) and 2, by their times.
    Parameters beside those of :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`:
    ``amplitude`` a, the height of one transient in dF/F; ``decay`` :math:`\tau` and ``rise``
    :math:`\rho` in seconds. A transient that rises peaks after :math:`\rho \log(1 + \tau / \rho)`.

    References:
        Vogelstein et al. (2010), *Fast nonnegative deconvolution for spike train inference from
        population calcium imaging*, J. Neurophysiol. 104.
        Speiser et al. (2017), *Fast amortized inference of neural activity from calcium imaging
        data with variational autoencoders*, arXiv:1711.01846.

    Args:
        rate: frames per second. This and the others are those of ``FluorescenceModel``.
        indicator: "gcamp6f" or "gcamp6s".
        rise: transients rise before they decay.
        num_frames: T of the traces that are drawn where there are no data.
        num_cells: cells with parameters of their own; 1 is shared by all traces.
        spikes: "bernoulli", "poisson" or "relaxed".
        temperature: of "relaxed".
        noise: "constant", or "growing" with the fluorescence.
        drift: has the slow parts.
        drift_period: seconds in which the fastest cosine completes a cycle.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: no frame rate, or none above 0; an unknown choice; a size below 1.
        DataError: ``x`` has another shape, or one frame; it is not known which cells they are.

    Example:
        Three traces of one second, the second frame of the first missing.

        >>> import pyro
        >>> model = LinearCalcium(rate=30.0, rise=True, num_frames=30)
        >>> x = model(size=3).detach()
        >>> x[0, 1] = float("nan")
        >>> trace = pyro.poutine.trace(model).get_trace(x)
        >>> trace.compute_log_prob()
        >>> trace.nodes["spikes"]["value"].shape, trace.nodes["x"]["log_prob"].shape
        (torch.Size([3, 30]), torch.Size([3]))
    """

    kind = "linear"
    amplitude: Tensor
    decay: Tensor
    rise: Tensor

    def __init__(
        self,
        rate: float | None = None,
        indicator: str = "gcamp6f",
        *,
        rise: bool = False,
        num_frames: int = 300,
        num_cells: int = 1,
        spikes: str = "bernoulli",
        temperature: float = 0.5,
        noise: str = "constant",
        drift: bool = True,
        drift_period: float = 20.0,
        num_data: int | None = None,
    ) -> None:
        super().__init__(
            rate,
            indicator,
            num_frames=num_frames,
            num_cells=num_cells,
            spikes=spikes,
            temperature=temperature,
            noise=noise,
            drift=drift,
            drift_period=drift_period,
            num_data=num_data,
        )
        self.rises = rise
        self._learn(INDICATORS[indicator]["rising"] if rise else {})

    def start_at(self, x: Any) -> None:
        """Start baseline and noise as the base does, and the amplitude at that of the traces.

        It is the height of their smaller isolated transients where noise lets them be seen, see
        :func:`~pyro_lvm.models.spike_heights.spike_heights`; otherwise it stays as it is.

        Args:
            x: ``(num_cells, T)``, one trace of each cell.

        Raises:
            DataError: there is not one trace of each cell.
        """
        super().start_at(x)
        values, observed = as_traces(x, self.row_shape, self.baseline)
        rows = len(values)
        usual, transient = self.amplitude.expand(rows), self._transient().expand(rows, -1)
        values = torch.where(observed, values, torch.nan)
        self._start("amplitude", spike_heights(values, transient, usual))

    @torch.no_grad()
    def _transient(self) -> Tensor:  # (num_cells, n)
        """Of height 1, twice as long as its decay, with the zeros of the frames before it."""
        frames = 2 + round(2 * float(self.decay.max()) * self.rate)
        spike = pad(self.decay.new_ones(self.num_cells, 1), (0, frames - 1))
        rising: Tensor = self.response(spike) / self._row("amplitude", None)
        return pad(rising, (max(3, round(_BEFORE * self.rate)), 0))

    def response(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:
        (spikes,) = trains
        if self.rises:
            times = self._row("rise", cell), self._row("decay", cell)
            return self._row("amplitude", cell) * rise_and_decay(spikes, *times, self.rate)
        return self._row("amplitude", cell) * self.calcium(spikes, cell)


class SaturatingCalcium(FluorescenceModel):
    r"""Calcium that binds several at once to a limited amount of dye, and is released (SCDF).

    .. math:: c_t = e^{-1/f\tau} c_{t-1} + s_t, \quad
        \dot d = \eta \, c^{n} (1 - d) - d / \kappa, \quad f_t(s) = a \, d_t

    d is the part of the dye that is bound; within a frame c is constant and d exact, where
    Speiser et al. take one step of Euler's method. The exponent facilitates, and the bound d < 1
    saturates: fluorescence rises for some frames after a spike. Parameters beside those of
    :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`: ``amplitude`` a, dF/F when all is
    bound; ``decay`` :math:`\tau` of calcium and ``unbinding`` :math:`\kappa` in seconds;
    ``binding`` :math:`\eta` in Hz; ``exponent`` n > 1.

    References:
        Speiser et al. (2017), *Fast amortized inference of neural activity from calcium imaging
        data with variational autoencoders*, arXiv:1711.01846.

    Args:
        rate: frames per second. This and all others are those of
            :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`.

    Example:
        One spike, and five at once: more than five times the fluorescence.

        >>> import torch
        >>> model = SaturatingCalcium(rate=60.0)
        >>> spikes = torch.zeros(2, 60)
        >>> spikes[:, 0] = torch.tensor([1.0, 5.0])
        >>> one, five = model.response(spikes).max(-1).values
        >>> one, five / one
        (tensor(0.20...), tensor(18...))
    """

    kind = "saturating"
    remnant = "unbinding"

    def response(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:
        (spikes,) = trains
        calcium = self.calcium(spikes, cell)
        binding = self._row("binding", cell) * calcium ** self._row("exponent", cell)
        speed = binding + 1 / self._row("unbinding", cell)
        return self._row("amplitude", cell) * relaxation(binding / speed, speed, self.rate)


class PhysiologicalCalcium(FluorescenceModel):
    r"""Cooperative binding of calcium to the indicator, with saturation and a rise time.

    .. math:: c_t = e^{-1/f\tau} c_{t-1} + s_t, \quad
        h = \frac{(c_0 + c)^n - c_0^n}{(c_0 + 1)^n - c_0^n}, \quad
        \dot p = \frac{h - (1 + \gamma h) \, p}{\kappa}, \quad f_t(s) = a \, p_t

    The model of MLspike: bound indicator p relaxes to :math:`h / (1 + \gamma h)` at the speed
    :math:`(1 + \gamma h) / \kappa`; within a frame c is constant and p exact. h is scaled to be 1
    at the calcium of one spike. Parameters beside those of
    :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`: ``amplitude`` a, dF/F of one spike
    had it the time to bind and nothing saturated; ``decay`` :math:`\tau` of calcium and ``rise``
    :math:`\kappa` in seconds; ``exponent`` n > 1, Hill's; ``resting`` calcium :math:`c_0`, in
    spikes; ``saturation`` :math:`\gamma`, so that dF/F stays below :math:`a / \gamma`.

    References:
        Deneux et al. (2016), *Accurate spike estimation from noisy calcium signals for ultrafast
        three-dimensional imaging of large neuronal populations in vivo*, Nature Communications 7.

    Args:
        rate: frames per second. This and all others are those of
            :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`.

    Example:
        >>> import torch
        >>> model = PhysiologicalCalcium(rate=60.0, indicator="gcamp6s")
        >>> spike = torch.zeros(1, 120)
        >>> spike[:, 0] = 1.0
        >>> response = model.response(spike)
        >>> response.max(), response.argmax() / model.rate  # dF/F, seconds
        (tensor(0.22...), tensor(0.15...))
    """

    kind = "physiological"

    def response(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:
        (spikes,) = trains
        rest, exponent = self._row("resting", cell), self._row("exponent", cell)
        saturation = self._row("saturation", cell)
        above = (rest + self.calcium(spikes, cell)) ** exponent - rest**exponent
        hill = above / ((rest + 1) ** exponent - rest**exponent)
        target, speed = hill / (1 + saturation * hill), 1 + saturation * hill
        bound = relaxation(target, speed / self._row("rise", cell), self.rate)
        return self._row("amplitude", cell) * bound
