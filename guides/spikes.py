"""Guide for spike trains behind fluorescence traces."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.spike_features import SpikeFeatures
from pyro_lvm.guides.spike_posteriors import SpikePosteriors
from pyro_lvm.nn import AtAnyRate, check_num_data, data_plate

__all__ = ["SpikeGuide"]


class SpikeGuide(AtAnyRate, PyroModule):
    r"""Spike trains of cells from their fluorescence, all frames at once, for any frame rate.

    A network reads each trace once and gives features of every frame; all draws share them.
    What follows them is a choice:

    ==================  ====================================================================
    posterior           spikes in the frames of a trace
    ==================  ====================================================================
    "factorised"        {0, 1}, independent given the trace; gradient="score" or "vimco"
    "autoregressive"    {0, 1}, each frame given all before it, as in DeepSpike; the same
                        gradients. A draw takes a step a frame, a density one call
    "relaxed"           (0, 1), independent; any gradient. The model needs relaxed spikes
    "straight_through"  {0, 1}, independent; any gradient, a biased one
    "implicit"          (0, 1), correlated, without a density: for ``AVB`` and ``IWAVB`` with
                        :class:`~pyro_lvm.nn.TraceDiscriminator`. The model needs relaxed
                        spikes
    ==================  ====================================================================

    A spike that might be in either of two frames is in one of them, so neighbours have a
    negative covariance in the posterior. Independent frames cannot have it: trained on
    simulation they have the right probabilities frame by frame, trained by an ELBO they drop
    some of the trains. A frame holds one spike at most, or with ``counts`` any number: a
    probability of one more after each of the first four, and the last of them after more.

    The network knows the frame rate, as a channel of its input, and traces are not resampled.
    A guide trained on several rates serves them all by :meth:`at`; one trained on a single rate
    serves that one.

    References:
        Speiser, Yan, Archer, Buesing, Turaga, Macke (2017), *Fast amortized inference of neural
        activity from calcium imaging data with variational autoencoders*, arXiv:1711.01846,
        for factorised and autoregressive spikes.
        Maddison, Mnih, Teh (2016), *The Concrete distribution*, arXiv:1611.00712.
        Im, Prakhya, Yan, Turaga, Branson (2019), *Importance weighted adversarial variational
        autoencoders for spike inference from calcium imaging data*, arXiv:1906.03214, for
        implicit guides.

    Args:
        encoder: called as ``encoder(x, rate)`` with traces ``(B, T)`` and the frame rate, to
            ``(B, T, encoder_features)``; a :class:`~pyro_lvm.nn.TraceEncoder` if left out.
        rate: frames per second.
        posterior: one of the table.
        temperature: above 0, of relaxed, straight-through and implicit draws.
        spike_rate: spikes per second that the guide starts with.
        state_features: size of the recurrent state of "autoregressive".
        noise_features: size of a frame's noise in each layer of "implicit".
        counts: frames hold any number of spikes, for models with spikes="poisson"; of "factorised"
            and "autoregressive".
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown posterior, one that has no counts, a size below 1, a rate or
            temperature of 0 or less, as many spikes as frames, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another shape, or no frames.

    Example:
        >>> import torch
        >>> guide = SpikeGuide(rate=30.0, posterior="autoregressive")
        >>> x = 0.1 * torch.randn(5, 100)
        >>> x[0, 20:30] = torch.nan  # frames that are not observed
        >>> guide(x)["spikes"].shape
        torch.Size([5, 100])
        >>> guide.at(7.5).posterior(x).sample((10,)).shape
        torch.Size([10, 5, 100])
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
        self.spikes = make.network(self.features.out_features)

    def forward(self, x: Any, cell: Any = None) -> dict[str, Tensor]:
        """One train of each trace, ``(B, T)``, at the site "spikes" inside plate "data".

        Args:
            x: traces ``(B, T)`` of dF/F; NaN where a frame is not observed.
            cell: which cells they are, for models that have parameters of each; not read here.
        """
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=next(self.parameters())):
            return {"spikes": pyro.sample("spikes", posterior)}

    def posterior(self, x: Any) -> dist.TorchDistribution:
        """The distribution of the spikes given each trace: batch ``(B,)``, event ``(T,)``."""
        trains: dist.TorchDistribution = self.spikes(self.features(x, self.rate))
        return trains
