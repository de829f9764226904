"""Calcium imaging of a dendrite: its shaft and its spines, with two kinds of events."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.models.spike_priors import spike_prior
from pyro_lvm.nn import check_size

__all__ = ["DendriticCalcium"]


class DendriticCalcium(FluorescenceModel):
    r"""A shaft and S spines that share action potentials; each spine has synaptic input too.

    .. math:: c_{it} = e^{-1/f\tau_i} c_{i,t-1} + a_i s_t + b_i u_{it}, \quad
        x_{it} = \beta_i + c_{it} + \text{noise}, \quad i = 0, \dots, S

    Back-propagating action potentials s reach every trace, the input :math:`u_i` only its spine,
    and the shaft, i = 0, has none: so what all traces show is told from what one spine shows. A
    datum is a dendrite, ``x`` ``(B, S + 1, T)``, shaft first. Sites in plate "data": "spikes",
    event ``(T,)``, and "synaptic", event ``(S, T)``.

    Parameters beside those of :class:`~pyro_lvm.models.fluorescence.FluorescenceModel`, which
    all but ``firing_rate`` have a value a trace, ``(num_cells, S + 1)``: ``amplitude`` a in dF/F
    and ``decay`` :math:`\tau` in seconds, as many; ``synaptic_amplitude`` b in dF/F and
    ``synaptic_rate`` in Hz, ``(num_cells, S)``.

    References:
        Speiser et al. (2017), *Fast amortized inference of neural activity from calcium imaging
        data with variational autoencoders*, arXiv:1711.01846, for inference of both trains.

    Args:
        rate: frames per second. This and the others are those of ``FluorescenceModel``.
        indicator: "gcamp6f" or "gcamp6s".
        num_spines: S.
        num_frames: T of the traces that are drawn where there are no data.
        num_cells: dendrites with parameters of their own; 1 is shared by all.
        spikes: "bernoulli", "poisson" or "relaxed", of both sites.
        temperature: of "relaxed".
        noise: "constant", or "growing" with the fluorescence.
        drift: has the slow parts.
        drift_period: seconds in which the fastest cosine completes a cycle.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: no frame rate, or none above 0; an unknown choice; a size below 1.
        DataError: ``x`` has another shape, or one frame; it is not known which cells they are.

    Example:
        >>> import pyro
        >>> model = DendriticCalcium(rate=30.0, num_spines=2, num_frames=60)
        >>> sites = pyro.poutine.trace(model).get_trace(size=4).nodes
        >>> [tuple(sites[name]["value"].shape) for name in ("spikes", "synaptic", "x")]
        [(4, 60), (4, 2, 60), (4, 3, 60)]
    """

    kind = "linear"

    def __init__(
        self,
        rate: float | None = None,
        indicator: str = "gcamp6f",
        *,
        num_spines: int = 3,
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
        self.row_shape = (check_size("num_spines", num_spines) + 1,)
        of_traces = {name: value[0].item() for name, value in self.values().items()}
        synaptic = {"synaptic_amplitude": of_traces["amplitude"], "synaptic_rate": 1.0}
        del of_traces["firing_rate"]
        self._learn(of_traces, *self.row_shape)
        self._learn(synaptic, num_spines)

    def prior(self, num_frames: int, cell: Tensor | None = None) -> dict[str, TorchDistribution]:
        expected = self._row("synaptic_rate", cell) / self.rate
        inputs = spike_prior(self.spikes, expected, num_frames, self.temperature)
        return {**super().prior(num_frames, cell), "synaptic": inputs.to_event(1)}

    def response(self, *trains: Tensor, cell: Tensor | None = None) -> Tensor:  # (*, B, S + 1, T)
        spikes, synaptic = trains
        shared = self._row("amplitude", cell) * spikes.unsqueeze(-2)
        own = self._row("synaptic_amplitude", cell) * synaptic
        return self.calcium(shared + pad(own, (0, 0, 1, 0)), cell)
