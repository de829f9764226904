"""A training step as a graph of tensor operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_lvm
from pyro_lvm.annealing import at_step
from pyro_lvm.objective import Objective
from pyro_lvm.own_step import resting
from pyro_lvm.random_state import kept_random_state
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.kinds import Call
from pyro_lvm.training.updating import Update

__all__ = [
    "Recorded",
    "graph_inputs",
    "is_recordable",
    "level_of_caller",
    "reason_of",
    "recorded",
    "settled",
    "trained",
    "undisturbed",
]

_FOUND = {"max_plate_nesting", "enumerates"}
_FABRIC = Fabric.__module__.partition(".")[0]
_LIBRARIES = [
    Path(str(library.__file__)).parent for library in (torch, pyro, sys.modules[_FABRIC], pyro_lvm)
]


class Recorded(NamedTuple):
    """A step as a function from :func:`graph_inputs` to the loss and its gradients.

    With an update in it, it is one from these and the update's inputs to its result alone.

    Attributes:
        run: it reads the parameters, draws random numbers, and moves what an objective keeps.
        parameters: those that the gradients are of.
    """

    run: Callable[..., Sequence[Tensor]]
    parameters: Sequence[Tensor]


def is_recordable(objective: Objective) -> bool:
    """Whether it keeps nothing but its step, or changes that in place, and what it holds too."""
    plain = {"step", *_FOUND}
    return all(each.keeps_in_place or {*each.state_dict()} == plain for each in _held(objective))


def graph_inputs(objective: Objective, call: Call) -> list[Tensor]:
    """Tensors of the batch, and what the objective's schedules hold at this step."""
    tensors = call.tensors
    device = tensors[0].device if tensors else None
    factors = [at_step(getattr(each, n), each.step) for each, n in _scheduled(objective)]
    return [*tensors, *(torch.full((), factor, device=device) for factor in factors)]


def trained(objective: Objective, loss: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    """What has a gradient, from one step with all checks, as without compilation."""
    with undisturbed(objective, loss), _Stated() as stated:
        loss(*args, **kwargs)
    unconstrained = [p.unconstrained() if hasattr(p, "unconstrained") else p for p in stated.values]
    every: dict[int, Tensor] = {id(p): p for p in [*loss.parameters(), *unconstrained]}
    return [p for p in every.values() if p.requires_grad]


class _Stated(Messenger):
    """Values of the parameters that programs state; not a trace, by which ``SVI.step`` is known."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []

    def _pyro_post_param(self, msg: Any) -> None:
        self.values.append(msg["value"])


def recorded(
    objective: Objective,
    loss: nn.Module,
    parameters: Sequence[Tensor],
    args: Any,
    kwargs: Any,
    update: Update | None = None,
) -> Recorded:
    """The step on such a batch; it is taken in doing so."""
    call = Call(args, kwargs)
    inputs = [*graph_inputs(objective, call), *(update.inputs(1.0) if update else ())]
    used: list[Tensor] = []

    def step(*inputs: Tensor) -> list[Tensor]:
        rest = iter(inputs)
        again, named = call.refilled(rest)
        with _within_graph(objective, rest):
            value = loss(*again, **named)
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        used[:] = [p for p, gradient in zip(parameters, found) if gradient is not None]
        gradients = [gradient for gradient in found if gradient is not None]
        if update is None:
            return [value.detach(), *gradients]
        with torch.no_grad():
            return [update(value.detach(), used, gradients, *rest)]

    with pyro.validation_enabled(False):
        run: Callable[..., Sequence[Tensor]] = make_fx(step)(*inputs)
    return Recorded(run, used)


@contextmanager
def undisturbed(objective: Objective, loss: nn.Module) -> Iterator[None]:
    """Leaves random numbers, buffers and what the objective keeps as they were.

    Steps of its own are not taken within: in several processes they would wait for each other.
    """
    state = deepcopy(objective.state_dict())
    buffers = [(buffer, buffer.clone()) for buffer in loss.buffers()]
    try:
        with kept_random_state(), resting():
            yield
    finally:
        found = [
            (each, {name: getattr(each, name) for name in _FOUND}) for each in _held(objective)
        ]
        objective.load_state_dict(state)
        for each, values in found:
            vars(each).update(values)
        for buffer, before in buffers:
            buffer.copy_(before)


def reason_of(error: Exception) -> str:
    """What could not be recorded, and the line of the program where that is."""
    error = getattr(error, "inner_exception", error)  # what a compiler of torch was stopped by
    reason = (str(error) or type(error).__name__).strip().split("\n")[0]
    own = [frame for frame in extract_tb(error.__traceback__) if _is_of_program(frame.filename)]
    return f"{reason} at {own[-1].filename}:{own[-1].lineno}, {own[-1].line!r}" if own else reason


def level_of_caller() -> int:
    """How far up the stack, for ``warnings.warn``, the first line outside the libraries is."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and not _is_of_program(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    return level


def _is_of_program(filename: str) -> bool:
    libraries = (Path(filename).is_relative_to(folder) for folder in _LIBRARIES)
    return not filename.startswith("<") and not any(libraries)


def _held(objective: Objective) -> list[Objective]:
    """The objective, and those that it holds."""
    return [objective, *(each for each in vars(objective).values() if isinstance(each, Objective))]


def _scheduled(objective: Objective) -> list[tuple[Objective, str]]:
    named = [(each, name) for each in _held(objective) for name in each.schedules]
    return [(each, name) for each, name in named if callable(getattr(each, name))]


@contextmanager
def settled(objective: Objective) -> Iterator[None]:
    """What goes before a step has been done."""
    vars(objective)["before_step"] = lambda *args: None
    try:
        yield
    finally:
        del vars(objective)["before_step"]


@contextmanager
def _within_graph(objective: Objective, inputs: Iterator[Tensor]) -> Iterator[None]:
    """The next inputs in the place of schedules, and nothing that goes before a step."""
    scheduled = _scheduled(objective)
    own = [getattr(each, name) for each, name in scheduled]
    for (each, name), factor in zip(scheduled, inputs):  # the rest of the inputs stays
        setattr(each, name, lambda step, value=factor: value)
    try:
        with settled(objective):
            yield
    finally:
        for (each, name), schedule in zip(scheduled, own, strict=True):
            setattr(each, name, schedule)
