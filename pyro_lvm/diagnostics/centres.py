"""Means of numbers and probabilities of classes, averaged over weighted particles."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_lvm.scoring import log_prob

__all__ = ["Centre", "best_guess", "entry_statistics"]


class Centre:
    """The weighted average of statistics that come in chunks.

    Example:
        >>> centre = Centre()
        >>> for value, weight in [(1.0, 3.0), (5.0, 1.0)]:
        ...     centre.add(torch.tensor([[value]]), torch.tensor([[weight]]).log())
        >>> centre.average
        tensor([2.])
    """

    def __init__(self) -> None:
        self.average = torch.zeros(())
        self._log_sum: Tensor | None = None

    def add(self, statistics: Tensor, log_weights: Tensor) -> None:
        """Take ``(K, *shape)`` more into account, by weights ``(K, *shape)`` or broadcastable."""
        log_sum = torch.logsumexp(log_weights, 0)
        shares = torch.softmax(log_weights, 0).nan_to_num(0.0)  # none, where all are 0
        new = (shares * statistics).sum(0)
        if self._log_sum is None:
            self.average, self._log_sum = new, log_sum
            return
        total = torch.logaddexp(self._log_sum, log_sum)
        self.average = torch.lerp(self.average, new, (log_sum - total).exp().nan_to_num(0.0))
        self._log_sum = total


def entry_statistics(fn: Any, drawn: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of independent entries, what their best guess is made of, and the last class of each.

    Args:
        fn: distribution of independent entries, of batch and event shape ``shape``.
        drawn: the entries themselves, ``shape``, where they were drawn: they are then certain.

    Returns:
        ``(1 + C, *shape)``, the mean and then the probability of each of up to C classes; and the
        number of the last class, broadcastable to ``shape``, -1 where there are none.
    """
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    some = fn.sample()
    last = _last_classes(fn.support, some)
    classes = range(int(last.max()) + 1)
    if drawn is not None:
        return torch.stack([drawn, *((drawn == c).to(drawn) for c in classes)]), last
    probabilities = [
        log_prob(fn, torch.where(last >= 0, last.clamp(max=c), some)).exp() * (c <= last)
        for c in classes
    ]
    return torch.stack([fn.mean, *probabilities]), last


def best_guess(statistics: Tensor, last: Tensor) -> Tensor:
    """From averages of :func:`entry_statistics`: the mean, or the most probable class."""
    mean, probabilities = statistics[0], statistics[1:]
    if not len(probabilities):
        return mean
    return torch.where(last >= 0, probabilities.argmax(0).to(mean), mean)


def _last_classes(support: Any, like: Tensor) -> Tensor:
    """The largest class number of each entry; -1 of numbers without a largest."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, constraints.cat):
        pairs = zip(support.cseq, support.lengths, strict=True)
        parts = [_last_classes(part, like).expand(length) for part, length in pairs]
        return torch.cat(parts)
    if support is constraints.boolean:
        return like.new_ones(())
    upper = getattr(support, "upper_bound", -1) if support.is_discrete else -1
    return torch.as_tensor(upper).to(like)
