"""Exact evidence and posterior of a short trace, by every train that its spikes can be."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.models.traces import as_traces

__all__ = ["EnumeratedSpikes", "enumerate_spikes"]

_MOST_FRAMES = 16


class EnumeratedSpikes(NamedTuple):
    """Every train of 0 and 1 and what each trace says of it.

    Attributes:
        trains: ``(2^T, T)``.
        log_posterior: ``(B, 2^T)`` log p(train | x), nats.
        log_evidence: ``(B,)`` log p(x), nats.
    """

    trains: Tensor
    log_posterior: Tensor
    log_evidence: Tensor

    @property
    def mean(self) -> Tensor:  # (B, T)
        """The posterior probability of a spike in each frame."""
        return self.log_posterior.exp() @ self.trains

    @property
    def covariance(self) -> Tensor:  # (B, T, T)
        """The posterior covariance of the frames."""
        second = torch.einsum("bn,nt,nu->btu", self.log_posterior.exp(), self.trains, self.trains)
        return second - self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)


def enumerate_spikes(model: FluorescenceModel, x: Any, cell: Any = None) -> EnumeratedSpikes:
    """Bayes' rule over all ``2^T`` trains; differentiable in the parameters.

    Args:
        model: with Bernoulli spikes.
        x: ``(B, T)`` dF/F, NaN where a frame is missing, T at most 16.
        cell: the cell of each trace, as of ``model``.

    Raises:
        ProgramError: the model's spikes are not Bernoulli.
        DataError: too many frames.

    Example:
        One spike, in the second frame.

        >>> from pyro_lvm.models import LinearCalcium
        >>> model = LinearCalcium(rate=30.0, drift=False)
        >>> model.noise_scale = torch.tensor([0.02])
        >>> enumerated = enumerate_spikes(model, torch.tensor([[0.0, 0.19, 0.17, 0.15]]))
        >>> enumerated.mean.detach().round(decimals=3)
        tensor([[0., 1., 0., 0.]])
    """
    if model.spikes != "bernoulli":
        hint = "Build the model with spikes='bernoulli'."
        raise ProgramError(explain("model", "Bernoulli spikes", model.spikes, hint))
    values, observed = as_traces(x, (), like=model.baseline)
    num_frames = values.shape[-1]
    if num_frames > _MOST_FRAMES:
        hint = "Cut a window out of the traces."
        raise DataError(explain("x", f"at most {_MOST_FRAMES} frames", str(num_frames), hint))
    trains = torch.tensor(list(product((0.0, 1.0), repeat=num_frames))).to(values)
    particles, cell = trains.unsqueeze(1), model.cells(cell, len(values))
    likelihood = model.decode(particles, cell=cell, observed=observed)
    log_prior = model.prior(num_frames, cell)["spikes"].log_prob(particles)
    log_joint = (log_prior + likelihood.log_prob(values)).mT  # (B, 2^T)
    log_evidence = log_joint.logsumexp(-1)
    return EnumeratedSpikes(trains, log_joint - log_evidence.unsqueeze(-1), log_evidence)
