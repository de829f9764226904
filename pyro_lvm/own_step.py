"""The step of an objective's own optimiser, as one operation of a recorded graph.

A graph holds operations on tensors. An optimiser does more: it counts, makes its state at its
first step, reads a learning rate that changes. Recorded as a single operation, it does so at
each replay too, whatever its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_lvm.saturation import Watch

__all__ = ["MakeOptimizer", "OwnStep", "resting"]

MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]


class OwnStep:
    """Steps of a discriminator's optimiser, and the watch over its logits.

    Args:
        parameters: of the discriminator.
        make: from parameters to an optimiser.
        watch: sees the logits of each step.

    Example:
        >>> weight = torch.ones(2)
        >>> step = OwnStep([weight], lambda p: torch.optim.SGD(p, 0.5), Watch("D", "Wait."))
        >>> step([torch.tensor([1.0, 2.0])], torch.zeros(3), torch.zeros(3))
        >>> weight
        tensor([0.5000, 0.0000])
    """

    def __init__(self, parameters: Sequence[Tensor], make: MakeOptimizer, watch: Watch) -> None:
        self.parameters = parameters
        self.optimizer = make(parameters)
        self.watch = watch

    def __call__(self, gradients: Sequence[Tensor | None], real: Tensor, fake: Tensor) -> None:
        """Move the parameters in place, but for those without a gradient."""
        with torch.no_grad():
            _own_step([*self.parameters], [*gradients], real, fake, _number(self))

    def take(self, values: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Move ``values`` as the parameters, whose place they take for one step.

        They are the parameters, or copies that a compiler made to move the parameters later.
        """
        own = [p.data for p in self.parameters]
        for p, value, gradient in zip(self.parameters, values, gradients, strict=True):
            p.data, p.grad = value, gradient
        self.optimizer.step()
        for p, value in zip(self.parameters, own, strict=True):
            p.data, p.grad = value, None


@contextmanager
def resting() -> Iterator[None]:
    """Within, steps are recorded and not taken."""
    token = _RESTS.set(True)
    try:
        yield
    finally:
        _RESTS.reset(token)


_RESTS = ContextVar("own steps rest", default=False)
_COUNT = count()
_KNOWN: WeakValueDictionary[int, OwnStep] = WeakValueDictionary()


def _number(step: OwnStep) -> int:
    """What stands for an object in a graph, which holds numbers and tensors only."""
    known = [number for number, other in _KNOWN.items() if other is step]
    number = known[0] if known else next(_COUNT)
    _KNOWN[number] = step
    return number


def _take(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    real: Tensor,
    fake: Tensor,
    number: int,
) -> None:
    if not _RESTS.get():
        _KNOWN[number].watch(real, fake)
        _KNOWN[number].take(parameters, gradients)


_own_step = torch.library.custom_op(
    "pyro_lvm::own_step",
    _take,
    mutates_args=("parameters",),
    tags=(torch.Tag.cudagraph_unsafe,),
)
