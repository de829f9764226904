"""Entries of a sequence: their family, what a network reads of one and what it gives for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_lvm.distributions.stopped_counts import StoppedCounts
from pyro_lvm.nn import check_choice, check_size, positive_scale

__all__ = ["Entries"]


class _Family(NamedTuple):
    """Numbers read of one value, numbers given for one distribution, and the two maps."""

    num_inputs: Callable[[int], int]
    num_outputs: Callable[[int], int]
    encode: Callable[[Tensor, int], Tensor]  # (*,) -> (*, num_inputs)
    distribution: Callable[[Tensor], dist.TorchDistribution]  # (*, num_outputs) -> batch (*,)
    support: Callable[[int], Any]
    has_rsample: bool


def _number(value: Tensor, num_categories: int) -> Tensor:
    return value.unsqueeze(-1)


def _indicator(value: Tensor, num_categories: int) -> Tensor:
    return one_hot(value.long(), num_categories)


def _normal(raw: Tensor) -> dist.TorchDistribution:
    return dist.Normal(raw[..., 0], positive_scale(raw[..., 1]))


def _bernoulli(raw: Tensor) -> dist.TorchDistribution:
    bernoulli: dist.TorchDistribution = dist.Bernoulli(logits=raw[..., 0])
    return bernoulli


def _categorical(raw: Tensor) -> dist.TorchDistribution:
    return dist.Categorical(logits=raw)


_FAMILIES = {
    "normal": _Family(lambda c: 1, lambda c: 2, _number, _normal, lambda c: constraints.real, True),
    "bernoulli": _Family(
        lambda c: 1, lambda c: 1, _number, _bernoulli, lambda c: constraints.boolean, False
    ),
    "counts": _Family(
        lambda c: 1, lambda c: c, _number, StoppedCounts, lambda c: StoppedCounts.support, False
    ),
    "categorical": _Family(
        lambda c: c,
        lambda c: c,
        _indicator,
        _categorical,
        lambda c: constraints.integer_interval(0, c - 1),
        False,
    ),
}


@dataclass(frozen=True)
class Entries:
    """One step's variables: independent of each other given the network's output.

    Args:
        family: "normal", "bernoulli", "categorical" or "counts".
        shape: event shape of one step: ``()`` or ``(L,)``.
        num_categories: C, of "categorical": values 0 to C - 1; of "counts": that of
            :class:`~pyro_lvm.distributions.StoppedCounts`.

    Raises:
        ProgramError: an unknown family, a size below 1.

    Example:
        >>> import torch
        >>> entries = Entries("categorical", shape=(2,), num_categories=3)
        >>> entries.num_inputs, entries.num_outputs
        (6, 6)
        >>> entries.encode(torch.tensor([0, 2]))
        tensor([1, 0, 0, 0, 0, 1])
        >>> entries.distribution(torch.zeros(5, 6)).event_shape
        torch.Size([2])
    """

    family: str = "normal"
    shape: tuple[int, ...] = ()
    num_categories: int = 2

    def __post_init__(self) -> None:
        check_choice("family", self.family, _FAMILIES)
        check_size("num_categories", self.num_categories)
        for size in self.shape:
            check_size("shape", size)

    @property
    def num_inputs(self) -> int:
        """Length of :meth:`encode`'s output."""
        return self._family.num_inputs(self.num_categories) * prod(self.shape)

    @property
    def num_outputs(self) -> int:
        """Length of the vector that :meth:`distribution` takes."""
        return self._family.num_outputs(self.num_categories) * prod(self.shape)

    @property
    def has_rsample(self) -> bool:
        return self._family.has_rsample

    @property
    def support(self) -> Any:
        """The constraint on one number of a value."""
        return self._family.support(self.num_categories)

    def encode(self, value: Tensor) -> Tensor:
        """Values ``(*, *shape)`` as a network reads them, ``(*, num_inputs)``."""
        numbers = self._family.encode(value, self.num_categories)
        return numbers.flatten(-1 - len(self.shape))

    def distribution(self, raw: Tensor) -> dist.TorchDistribution:
        """From unconstrained ``(*, num_outputs)`` to batch shape ``(*,)``, event ``shape``."""
        made = self._family.distribution(raw.unflatten(-1, (*self.shape, -1)))
        entries: dist.TorchDistribution = made.to_event(len(self.shape))
        return entries

    @property
    def _family(self) -> _Family:
        return _FAMILIES[self.family]
