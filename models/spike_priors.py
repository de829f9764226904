"""Priors of spike trains: frames independent of each other given the rate."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.nn import check_choice

__all__ = ["SPIKES", "spike_prior"]

SPIKES = ("bernoulli", "poisson", "relaxed")
"""What a frame can hold: 0 or 1, a count, or a number between 0 and 1."""


def spike_prior(
    kind: str, expected: Tensor, num_frames: int, temperature: float
) -> dist.TorchDistribution:
    r"""The distribution of a train, event ``(num_frames,)``, that expects m spikes a frame.

    "poisson" counts the spikes of a Poisson process, which frames of 30 Hz and slower ask for;
    "bernoulli" says whether there were any, with probability :math:`1 - e^{-m}`; "relaxed" has a
    density, for path gradients, and its values exceed 1/2 with the same probability.

    References:
        Maddison, Mnih, Teh (2017), *The concrete distribution*, arXiv:1611.00712, appendix B.

    Args:
        kind: one of ``SPIKES``.
        expected: m, ``(*batch, 1)``.
        num_frames: T.
        temperature: of "relaxed".

    Raises:
        ProgramError: an unknown kind.

    Example:
        >>> train = spike_prior("bernoulli", torch.tensor([0.1]), num_frames=3, temperature=0.5)
        >>> train.event_shape, train.mean
        (torch.Size([3]), tensor([0.0952, 0.0952, 0.0952]))
    """
    check_choice("spikes", kind, SPIKES)
    expected = expected.expand(*expected.shape[:-1], num_frames)
    if kind == "poisson":
        frames: dist.TorchDistribution = dist.Poisson(expected)
    elif kind == "bernoulli":
        frames = dist.Bernoulli(logits=_logits(expected))
    else:
        scale = torch.as_tensor(temperature).to(expected)
        frames = dist.RelaxedBernoulli(scale, logits=_logits(expected))
    train: dist.TorchDistribution = frames.to_event(1)
    return train


def _logits(expected: Tensor) -> Tensor:
    """Of the probability that a Poisson variable is not 0."""
    return expected.expm1().log()
