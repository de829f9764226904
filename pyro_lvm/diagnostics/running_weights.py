"""Sums over importance weights that come in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor

from pyro_lvm.weights import tail_length

__all__ = ["Moments", "RunningWeights"]


@dataclass(frozen=True)
class Moments:
    """Mean and spread of values; what is far from zero does not cancel.

    Attributes:
        count: of values.
        mean: ``(*batch,)``.
        squares: ``(*batch,)``, sum of squares about the mean.
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Of ``(count, *batch)``."""
        mean = values.mean(0)
        return cls(len(values), mean, (values - mean).square().sum(0))

    def joined(self, other: Moments) -> Moments:
        """Of the values of both."""
        count, step = self.count + other.count, other.mean - self.mean
        between = step.square() * (self.count * other.count / count)
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + between)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean; infinite for one value."""
        if self.count == 1:
            return torch.full_like(self.mean, inf)
        return (self.squares / (self.count - 1) / self.count).sqrt()


@dataclass(frozen=True)
class RunningWeights:
    """The draws so far: sums, and the largest weights for the fit of their tail.

    Attributes:
        log_sum: ``(*batch,)``, log of the sum of weights.
        log_sum_squares: ``(*batch,)``.
        moments: of the log-weights.
        largest: ``(tail_length(num_samples) + 1 or fewer, *batch)`` log-weights, descending.
        num_samples: draws there will be in all.
    """

    log_sum: Tensor
    log_sum_squares: Tensor
    moments: Moments
    largest: Tensor
    num_samples: int

    @classmethod
    def of(cls, log_weights: Tensor, num_samples: int) -> RunningWeights:
        """From ``(k, *batch)`` nats."""
        return cls(
            torch.logsumexp(log_weights, 0),
            torch.logsumexp(2 * log_weights, 0),
            Moments.of(log_weights),
            _largest(log_weights, num_samples),
            num_samples,
        )

    def joined(self, other: RunningWeights) -> RunningWeights:
        """With the draws of ``other``."""
        return RunningWeights(
            torch.logaddexp(self.log_sum, other.log_sum),
            torch.logaddexp(self.log_sum_squares, other.log_sum_squares),
            self.moments.joined(other.moments),
            _largest(torch.cat([self.largest, other.largest]), self.num_samples),
            self.num_samples,
        )

    @property
    def log_mean(self) -> Tensor:
        """Log of the mean weight, ``(*batch,)`` nats."""
        return self.log_sum - log(self.num_samples)

    @property
    def log_mean_error(self) -> Tensor:
        """Its standard error by the delta method; NaN for one draw."""
        size = self.num_samples / self.effective_sample_size
        return ((size - 1).clamp(min=0) / (self.num_samples - 1)).sqrt()

    @property
    def effective_sample_size(self) -> Tensor:
        """Kish's, ``(*batch,)`` draws."""
        return torch.exp(2 * self.log_sum - self.log_sum_squares)


def _largest(log_weights: Tensor, num_samples: int) -> Tensor:
    count = min(tail_length(num_samples) + 1, len(log_weights))
    return log_weights.topk(count, dim=0).values
