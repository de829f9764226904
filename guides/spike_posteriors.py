"""Distributions of spike trains given features of each frame, by name."""

from __future__ import annotations

from math import log

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive, Entries, StoppedCounts
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.bernoulli_draws import bernoulli
from pyro_lvm.guides.recurrence import RecurrentSteps
from pyro_lvm.guides.spike_noise import ImplicitSpikes
from pyro_lvm.nn import MLP, check_choice, check_positive, check_size

__all__ = ["AutoregressiveSpikes", "FactorisedCounts", "FactorisedSpikes", "SpikePosteriors"]

_DRAWS = {"factorised": "exact", "relaxed": "relaxed", "straight_through": "straight_through"}
_FAMILIES = (*_DRAWS, "autoregressive", "implicit")
_COUNTING = ("factorised", "autoregressive")
_SPIKES, _COUNTS = Entries("bernoulli"), Entries("counts", num_categories=4)


class SpikePosteriors:
    """Networks from features ``(*, T, C)`` to distributions of batch ``(*,)``, event ``(T,)``.

    Args:
        family: "factorised", "relaxed", "straight_through", "autoregressive" or "implicit".
        rate: frames per second.
        spike_rate: spikes per second before training.
        temperature: of "relaxed", "straight_through" and "implicit".
        state_features: of "autoregressive".
        noise_features: of "implicit".
        counts: frames hold any number of spikes, in place of one at most.

    Raises:
        ProgramError: an unknown family, one that has no counts, a size below 1, a rate or
            temperature of 0 or less, as many spikes as frames.
    """

    def __init__(
        self,
        family: str,
        rate: float,
        spike_rate: float,
        temperature: float,
        state_features: int,
        noise_features: int,
        counts: bool,
    ) -> None:
        check_choice("posterior", family, _COUNTING if counts else _FAMILIES)
        self.family, self.counts = family, counts
        self.log_odds = _log_odds(spike_rate, check_positive("rate", rate, "30.0"))
        self.temperature = check_positive("temperature", temperature, "0.5")
        self.state_features = check_size("state_features", state_features)
        self.noise_features = check_size("noise_features", noise_features)

    def network(self, num_features: int) -> nn.Module:
        """With parameters of its own, for features of this size."""
        if self.family == "autoregressive":
            entries = _COUNTS if self.counts else _SPIKES
            return AutoregressiveSpikes(num_features, self.log_odds, self.state_features, entries)
        if self.counts:
            return FactorisedCounts(num_features, self.log_odds)
        if self.family == "implicit":
            return ImplicitSpikes(
                num_features, self.log_odds, self.temperature, self.noise_features
            )
        draw = _DRAWS[self.family]
        return FactorisedSpikes(num_features, self.log_odds, draw, self.temperature)


class FactorisedSpikes(nn.Module):
    """Frames independent of each other, with log-odds linear in their features.

    Args:
        num_features: C, size of a frame's features.
        log_odds: of a spike in a frame, at the start.
        draw: "exact", "relaxed" or "straight_through".
        temperature: of the last two.

    Example:
        >>> import torch
        >>> FactorisedSpikes(4, -3.0, "exact", 0.5)(torch.zeros(2, 3, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, num_features: int, log_odds: float, draw: str, temperature: float) -> None:
        super().__init__()
        self.draw, self.temperature = draw, temperature
        self.head = MLP(num_features, 1, hidden=())
        nn.init.constant_(self.head.bias, log_odds)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        logits = self.head(features).squeeze(-1)
        frames: dist.TorchDistribution = bernoulli(logits, self.draw, self.temperature).to_event(1)
        return frames


class FactorisedCounts(nn.Module):
    """Counts of frames independent of each other, with log-odds of one more linear in features.

    Args:
        num_features: C, size of a frame's features.
        log_odds: of a spike in a frame, and of each further one, at the start.

    Example:
        >>> import torch
        >>> FactorisedCounts(4, -3.0)(torch.zeros(2, 3, 4)).sample((5,)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, num_features: int, log_odds: float) -> None:
        super().__init__()
        self.head = MLP(num_features, _COUNTS.num_outputs, hidden=())
        nn.init.constant_(self.head.bias, log_odds)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        frames: dist.TorchDistribution = StoppedCounts(self.head(features))
        train: dist.TorchDistribution = frames.to_event(1)
        return train


class AutoregressiveSpikes(nn.Module):
    """Each frame given all frames before it: a GRU reads its features and the spike before it.

    Args:
        num_features: C, size of a frame's features.
        log_odds: of a spike in a frame, at the start.
        state_features: size of the recurrent state.
        entries: what a frame holds.

    Example:
        >>> import torch
        >>> AutoregressiveSpikes(4, -3.0, 8)(torch.zeros(2, 3, 4)).event_shape
        torch.Size([3])
    """

    def __init__(
        self, num_features: int, log_odds: float, state_features: int, entries: Entries = _SPIKES
    ) -> None:
        super().__init__()
        self.entries = entries
        self.steps = RecurrentSteps(
            entries.num_inputs, num_features, entries.num_outputs, state_features
        )
        nn.init.constant_(self.steps.head.bias, log_odds)

    def forward(self, features: Tensor) -> Autoregressive:
        return Autoregressive(self.steps, features, self.entries)


def _log_odds(spike_rate: float, rate: float) -> float:
    probability = check_positive("spike_rate", spike_rate, "1.0") / rate
    if probability >= 1:
        found = f"{spike_rate} spikes in {rate} frames a second"
        hint = "Pass spike_rate=1.0."
        raise ProgramError(explain("spike_rate", "fewer spikes than frames", found, hint))
    return log(probability / (1 - probability))
