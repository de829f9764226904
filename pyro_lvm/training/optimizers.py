"""Optimisers and learning-rate schedules by name or by function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["OptimizerSpec", "SchedulerSpec", "make_optimizer", "make_scheduler"]

OptimizerSpec = str | Callable[[Sequence[Tensor]], Optimizer]
SchedulerSpec = str | Callable[[Optimizer], LRScheduler] | None

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def make_optimizer(spec: OptimizerSpec, parameters: Sequence[Tensor], lr: float) -> Optimizer:
    """The optimiser ``spec`` names at rate ``lr``, or the one it returns for the parameters.

    Those by name make one pass over each parameter (torch's ``fused``).

    Raises:
        PyroLVMError: an unknown name, or an optimiser for several processes in a lone one.
    """
    if callable(spec):
        return _called(spec, parameters)
    if spec not in _OPTIMIZERS:
        raise _unknown("optimizer", spec, list(_OPTIMIZERS), "params -> torch.optim.Optimizer")
    return _OPTIMIZERS[spec](parameters, lr=lr, fused=True)


def make_scheduler(
    spec: SchedulerSpec, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    """The schedule, stepped once per update; "cosine" falls to 0 over ``total_steps``."""
    if spec is None:
        return None
    if callable(spec):
        return spec(optimizer)
    if spec != "cosine":
        raise _unknown("lr_scheduler", spec, ["cosine"], "optimizer -> LRScheduler")
    return CosineAnnealingLR(optimizer, T_max=max(total_steps, 1))


def _called(
    spec: Callable[[Sequence[Tensor]], Optimizer], parameters: Sequence[Tensor]
) -> Optimizer:
    try:
        return spec(parameters)
    except ValueError as error:
        if "process group" not in str(error):
            raise
        expected = "a process group, over which its state is shared out"
        hint = "Start processes by torchrun, or pass strategy='ddp', which does for one as well."
        raise PyroLVMError(explain("optimizer", expected, "none", hint)) from error


def _unknown(name: str, found: str, known: list[str], signature: str) -> PyroLVMError:
    return PyroLVMError(
        explain(name, f"one of {known} or a function", repr(found), f"Pass a function {signature}.")
    )
