"""Log-probabilities in as few passes over the data as a careful hand would take.

``torch.distributions.Bernoulli`` negates its cost term by term before an event is summed:
one more pass, forward and backward, over the largest tensor of most programs. The sum is
negated here instead, which changes no bit of the result.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Bernoulli, Independent
from torch.distributions.utils import broadcast_all
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["log_prob"]


def log_prob(fn: Any, value: Tensor) -> Tensor:
    """``fn.log_prob(value)``, nats, shape ``fn.batch_shape`` broadcast with the value's.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> fn = dist.Bernoulli(logits=torch.zeros(3)).to_event(1)
        >>> log_prob(fn, torch.tensor([0.0, 1.0, 1.0]))
        tensor(-2.0794)
    """
    if isinstance(fn, Independent) and type(fn.base_dist).log_prob is Bernoulli.log_prob:
        return _of_bernoulli(fn.base_dist, value, fn.reinterpreted_batch_ndims)
    result: Tensor = fn.log_prob(value)
    return result


def _of_bernoulli(base: Any, value: Tensor, event_dim: int) -> Tensor:
    if base._validate_args:
        base._validate_sample(value)
    logits, value = broadcast_all(base.logits, value)
    cost: Tensor = binary_cross_entropy_with_logits(logits, value, reduction="none")
    return -cost.sum(tuple(range(-event_dim, 0)))
