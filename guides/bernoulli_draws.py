"""Bernoulli variables drawn exactly, relaxed, or straight through."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

from pyro_lvm.distributions import StraightThroughBernoulli

__all__ = ["bernoulli"]


def bernoulli(logits: Tensor, draw: str, temperature: float) -> dist.TorchDistribution:
    """Variables of batch ``(*,)`` from log-odds ``(*,)``.

    Args:
        logits: log-odds of 1.
        draw: "exact", "relaxed" or "straight_through".
        temperature: of relaxed and straight-through draws.

    Example:
        >>> import torch
        >>> bernoulli(torch.zeros(3), "exact", 0.5).sample()
        tensor([...])
    """
    if draw == "relaxed":
        relaxed: dist.TorchDistribution = dist.RelaxedBernoulli(
            logits.new_full((), temperature), logits=logits
        )
        return relaxed
    if draw == "straight_through":
        return StraightThroughBernoulli(temperature, logits)
    exact: dist.TorchDistribution = dist.Bernoulli(logits=logits)
    return exact
