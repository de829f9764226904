"""What follows the gradients of a step, as tensor operations: norm, cut, and the optimiser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

__all__ = ["StateMissing", "Unrecordable", "Update", "cut", "is_plain"]

_AS_OPERATIONS = {"capturable": True, "foreach": True, "fused": False}


class StateMissing(Exception):
    """The optimiser would make its state at this step, as it does at its first."""


class Unrecordable(Exception):
    """A step that has no graph with the optimiser in it."""


def is_plain(optimizer: Optimizer) -> bool:
    """Whether its steps are torch's own and no hook looks on, so that a graph may take them."""
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return type(optimizer).__module__.startswith("torch.optim.") and not hooks


def cut(parameters: Sequence[Tensor], max_norm: float | None, **how: bool) -> Tensor:
    """The norm of their gradients, before these are cut to ``max_norm``."""
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None], **how)
    if max_norm is not None:
        clip_grads_with_norm_(parameters, max_norm, norm, **how)
    return norm


class Update:
    """The rest of a step within a graph; where it is not finite, everything stays as it was.

    A copy of the optimiser takes its step on copies of the parameters and of its state, by the
    operations that ``torch.compile`` would see. Learning rates are inputs of the graph, other
    settings are part of it. Nothing of the optimiser is changed but its tensors, in place.

    Args:
        optimizer: see :func:`is_plain`.
        max_grad_norm: the gradient is cut to this norm.
    """

    def __init__(self, optimizer: Optimizer, max_grad_norm: float | None = None) -> None:
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm

    def inputs(self, count: float) -> list[Tensor]:
        """The number that the loss is divided by, and the rates, as :meth:`__call__` wants them."""
        like = self.optimizer.param_groups[0]["params"][0]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [_like(like, value) for value in (count, *rates)]

    @property
    def settings(self) -> str:
        """What a graph holds of the optimiser beside tensors."""
        groups = self.optimizer.param_groups
        return str([{k: v for k, v in g.items() if k not in ("params", "lr")} for g in groups])

    @property
    def state(self) -> list[Tensor]:
        """What it moves beside parameters."""
        return [v for state in self.optimizer.state.values() for v in _tensors(state).values()]

    def __call__(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        count: Tensor,
        *rates: Tensor,
    ) -> Tensor:
        """The loss and the gradient's norm ``(2,)`` of the loss over ``count``, after the step.

        Raises:
            StateMissing: the optimiser has no state yet for one of the parameters.
        """
        value, moved = loss / count, [p.detach().clone() for p in parameters]
        for p, gradient in zip(moved, gradients, strict=True):
            p.grad = gradient / count
        norm = cut(moved, self.max_grad_norm, foreach=False)
        state = self._stepped(dict(zip(parameters, moved, strict=True)), rates)
        is_finite = value.isfinite() & norm.isfinite()
        for old, new in [*zip(parameters, moved, strict=True), *state]:
            old.copy_(torch.where(is_finite, new.to(old), old))
        return torch.stack([value, norm.to(value)])

    @contextmanager
    def undone(self, parameters: Sequence[Tensor]) -> Iterator[None]:
        """Steps within leave the parameters and the optimiser's state as they were."""
        before = [(tensor, tensor.detach().clone()) for tensor in (*parameters, *self.state)]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in before:
                    tensor.copy_(value)

    def _stepped(
        self, moved: Mapping[Tensor, Tensor], rates: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Move the values of ``moved``; the optimiser's tensors, each with its next value."""
        own, groups = self.optimizer.state, self.optimizer.param_groups
        state = {p: {k: _copied(p, v) for k, v in own.get(p, {}).items()} for p in moved}
        stand_in = copy(self.optimizer)
        stand_in.state = defaultdict(dict, {moved[p]: state[p] for p in moved})
        stand_in.param_groups = [
            _as_operations(group, [moved[p] for p in group["params"] if p in moved], rate)
            for group, rate in zip(groups, rates, strict=True)
        ]
        try:
            with _compiling():
                unwrap(type(stand_in).step)(stand_in)
        except RuntimeError:  # some look at the rate to make their state
            if all(own.get(p) for p in moved):
                raise
            raise StateMissing from None
        if any(_tensors(state[p]).keys() != _tensors(own.get(p, {})).keys() for p in moved):
            raise StateMissing
        return [(old, state[p][k]) for p in moved for k, old in _tensors(own.get(p, {})).items()]


def _as_operations(group: dict[str, Any], params: list[Tensor], rate: Tensor) -> dict[str, Any]:
    how = {name: value for name, value in _AS_OPERATIONS.items() if name in group}
    return {**group, **how, "params": params, "lr": rate}


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _copied(parameter: Tensor, value: Any) -> Any:
    """With numbers, such as how many steps were taken, in the parameter's precision."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.dim() else value.to(parameter.dtype, copy=True)


def _like(other: Tensor, value: float | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(other)
    return _scalar(value, other.dtype, other.device)


@lru_cache(maxsize=64)  # a rate is often the last one: on a GPU that is one transfer less
def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


@contextmanager
def _compiling() -> Iterator[None]:
    """Optimisers of torch look at no value within, as under ``torch.compile``."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
