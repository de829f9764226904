"""Counts with a probability of one more after each of the first few."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

__all__ = ["StoppedCounts"]

_NO_SIZE = torch.Size()


class StoppedCounts(TorchDistribution):
    r"""A count that goes on from n to n + 1 with probability :math:`\sigma(l_n)`, else stops.

    .. math:: p(n) = \sigma(-l_n) \prod_{m < n} \sigma(l_m), \qquad l_n = l_{C-1}
        \text{ for } n \ge C

    Any distribution of the counts below C, with a geometric tail: all counts have a density,
    where a categorical over 0 to C would give none to those beyond. With logits of a Poisson's
    own ratios it is near that Poisson; unlike one, it can be sure of a single event.

    Args:
        logits: log-odds l of one more after 0, 1, ..., C - 1; ``(*batch, C)``.

    Example:
        >>> counts = StoppedCounts(torch.tensor([0.0, -2.0]))
        >>> counts.log_prob(torch.arange(4.0)).exp()
        tensor([0.5000, 0.4404, 0.0525, 0.0063])
        >>> counts.sample((3,)).shape, counts.mean
        (torch.Size([3]), tensor(0.5677))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.nonnegative_integer

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StoppedCounts:
        return StoppedCounts(self.logits.expand(*batch_shape, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        gone_on = torch.rand_like(logits) < logits.sigmoid()
        counts = gone_on.cumprod(-1).sum(-1).to(logits)
        further = _geometric(logits[..., -1])
        return torch.where(counts == logits.shape[-1], counts + further, counts)

    def log_prob(self, value: Tensor) -> Tensor:  # (*left, *batch)
        """Nats."""
        reached, stopped = self._log_reached(), logsigmoid(-self.logits)
        value = value.to(self.logits)
        few, beyond = value.clamp(max=self.logits.shape[-1]), logsigmoid(self.logits[..., -1])
        last = value.clamp(max=self.logits.shape[-1] - 1)
        return _at(reached, few) + (value - few) * beyond + _at(stopped, last)

    @property
    def mean(self) -> Tensor:  # (*batch,)
        reached = self._log_reached()[..., 1:].exp()
        return reached.sum(-1) + reached[..., -1] * self.logits[..., -1].exp()

    def _log_reached(self) -> Tensor:  # (*batch, C + 1)
        """Of the counts 0 to C, the log-probability of as many or more."""
        return pad(logsigmoid(self.logits).cumsum(-1), (1, 0))


def _geometric(logits: Tensor) -> Tensor:
    """Times to go on before the first stop."""
    tiny = torch.finfo(logits.dtype).tiny
    uniform = torch.rand_like(logits).clamp_min(tiny)
    return (uniform.log() / logsigmoid(logits).clamp_max(-tiny)).floor()


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """The entry of each row at a number of its own, the dims to the left broadcast."""
    left = torch.broadcast_shapes(rows.shape[:-1], index.shape)
    places = index.long().expand(left).unsqueeze(-1)
    return rows.expand(*left, -1).gather(-1, places).squeeze(-1)
