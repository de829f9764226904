"""What decides the updates of a run, in plain types: a resumed run must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from inspect import signature
from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_lvm.objective import Objective

__all__ = ["differences", "update_rule"]

_MEMORY = {"max_plate_nesting", "chunk_particles", "chunk_mixing"}
"""Arguments of an objective that leave its numbers as they are."""
_OTHER = {
    *("params", "initial_lr", "base_lrs", "_last_lr"),  # follow from the others
    *("foreach", "fused", "capturable", "differentiable"),  # how, not what, is computed
}
"""Entries of an optimiser and its schedule that are left out."""
_MOST_NAMES = 5


def update_rule(
    objective: Objective, optimizer: Optimizer, scheduler: LRScheduler | None
) -> dict[str, Any]:
    """Settings of all three by dotted name, before the first step.

    Functions are not told apart, as no name of theirs says what they do.

    Example:
        >>> import torch
        >>> from pyro_lvm.objectives import Renyi
        >>> optimizer = torch.optim.SGD([torch.zeros(2)], lr=0.5)
        >>> rule = update_rule(Renyi(5, alpha=2.0), optimizer, None)
        >>> rule["objective"], rule["objective.alpha"], rule["optimizer.lr"]
        ('Renyi', 2.0, 0.5)
    """
    groups = enumerate(optimizer.param_groups)
    schedule = {} if scheduler is None else scheduler.state_dict()
    parts = [
        {"objective": type(objective).__name__},
        _settings("objective", _arguments(objective)),
        {"optimizer": type(optimizer).__name__},
        *(_settings(f"optimizer[{i}]" if i else "optimizer", group) for i, group in groups),
        {"lr_scheduler": None if scheduler is None else type(scheduler).__name__},
        _settings("lr_scheduler", schedule),
    ]
    return dict(chain.from_iterable(part.items() for part in parts))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names in both whose values differ, the first few of them."""
    return [name for name in now if name in saved and saved[name] != now[name]][:_MOST_NAMES]


def _arguments(objective: Objective) -> dict[str, Any]:
    held = vars(objective)
    names = [name for name in signature(type(objective)).parameters if name not in _MEMORY]
    return {name: held[name] for name in names if name in held}


def _settings(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{n}": _plain(value) for n, value in given.items() if n not in _OTHER}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() == 1 else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if name not in _OTHER}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value) in (str, int, float, bool, type(None)) or is_dataclass(value):
        return repr(value) if is_dataclass(value) else value
    return type(value).__name__
