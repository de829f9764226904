"""Guide for the spikes of a dendrite and the synaptic inputs of its spines."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import elu

from pyro_lvm.errors import DataError, explain
from pyro_lvm.guides.spike_features import SpikeFeatures
from pyro_lvm.guides.spike_posteriors import SpikePosteriors
from pyro_lvm.nn import MLP, AtAnyRate, OverTime, check_num_data, data_plate, joined

__all__ = ["DendriticSpikeGuide"]

_WIDTH = 21  # frames of a train that an input's features see


class DendriticSpikeGuide(AtAnyRate, PyroModule):
    r"""Action potentials that a shaft and all its spines share, and each spine's own inputs.

    .. math:: q(s, u \mid x) = q(s \mid x) \prod_i q(u_i \mid s, x_i, x_0)

    The first trace of a dendrite is that of its shaft. An input of a spine and a
    back-propagating spike explain the same transient, so inputs are drawn given the spikes. One
    network reads every trace, and one infers the inputs of every spine, so that a guide serves
    any number of spines, in any order.

    References:
        Speiser, Yan, Archer, Buesing, Turaga, Macke (2017), *Fast amortized inference of neural
        activity from calcium imaging data with variational autoencoders*, arXiv:1711.01846, for
        both trains by one guide.

    Args:
        encoder: of one trace, see :class:`~pyro_lvm.guides.SpikeGuide`.
        rate: frames per second.
        posterior: of both sites, see :class:`~pyro_lvm.guides.SpikeGuide`.
        temperature: above 0, of relaxed, straight-through and implicit draws.
        spike_rate: spikes, and inputs of a spine, per second that the guide starts with.
        state_features: size of the recurrent states of "autoregressive".
        noise_features: size of a frame's noise in each layer of "implicit".
        counts: frames hold any number of spikes, for models with spikes="poisson"; of "factorised"
            and "autoregressive".
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown posterior, one that has no counts, a size below 1, a rate or
            temperature of 0 or less, as many spikes as frames, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another shape, or no frames or spines.

    Example:
        >>> guide = DendriticSpikeGuide(rate=30.0)
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 3, 100)).items()}
        {'spikes': torch.Size([5, 100]), 'synaptic': torch.Size([5, 2, 100])}
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        rate: float = 60.0,
        posterior: str = "factorised",
        temperature: float = 0.5,
        spike_rate: float = 1.0,
        state_features: int = 64,
        noise_features: int = 8,
        counts: bool = False,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        make = SpikePosteriors(
            posterior, rate, spike_rate, temperature, state_features, noise_features, counts
        )
        self.rate = float(rate)
        self.num_data = check_num_data(num_data)
        self.features = SpikeFeatures(encoder, encoder_features)
        size = self.features.out_features
        self.traces = MLP(2 * size, size, hidden=())
        self.train_features = OverTime(1, size, _WIDTH)
        self.spikes = make.network(2 * size)
        self.synaptic = make.network(size)

    def forward(self, x: Any, cell: Any = None) -> dict[str, Tensor]:
        """One draw of "spikes" ``(B, T)`` and "synaptic" ``(B, S, T)`` inside plate "data".

        Args:
            x: traces ``(B, S + 1, T)`` of dF/F, the shaft's first; NaN where not observed.
            cell: which cells they are, for models that have parameters of each; not read here.
        """
        features = self._features(x)  # (B, S + 1, T, C)
        shaft, spines = features[:, 0], features[:, 1:]
        own = self.traces(joined([spines, shaft.unsqueeze(1)]))
        with data_plate(len(x), self.num_data, like=own):
            trains = self.spikes(torch.cat([shaft, spines.mean(1)], -1))
            spikes = pyro.sample("spikes", trains)
            synaptic = pyro.sample("synaptic", self._inputs(own, spikes))
        return {"spikes": spikes, "synaptic": synaptic}

    def _inputs(self, own: Tensor, spikes: Tensor) -> dist.TorchDistribution:
        """Of the spines given the drawn spikes: batch ``(*left, B)``, event ``(S, T)``."""
        shared = self.train_features(spikes.unsqueeze(-1)).unsqueeze(-3)  # (*left, B, 1, T, C)
        inputs: dist.TorchDistribution = self.synaptic(elu(own + shared)).to_event(1)
        return inputs

    def _features(self, x: Any) -> Tensor:
        traces = torch.as_tensor(x)
        if traces.dim() != 3 or traces.shape[1] < 2 or not traces.numel():
            raise DataError(
                explain(
                    "x",
                    "traces of shape (dendrites, spines + 1, frames), the shaft's first",
                    f"shape {tuple(traces.shape)}",
                    "x[None] makes one dendrite a batch; for cells use SpikeGuide.",
                )
            )
        rows = self.features(traces.flatten(0, 1), self.rate)
        features: Tensor = rows.unflatten(0, traces.shape[:2])
        return features
