"""Options of a run: checked, described in plain types, and handed to Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, PyroLVMError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.training.fabric import Fabric, Strategy

__all__ = ["check_covered", "check_options", "describe", "launch"]

_LEAST = {
    "max_epochs": 0,
    "max_steps": 0,
    "batch_size": 1,
    "patience": 1,
    "max_skips": 0,
    "evaluate_every": 1,
    "diagnostic_particles": 0,
    "log_every": 1,
    "checkpoint_every": 1,
}

_SHARDS = "with shards of them outside the wrapped loss, where programs are evaluated"
_ENGINE = "whose engine keeps gradients and the optimiser's state to itself"
_APART = {"fsdp": _SHARDS, "modelparallel": _SHARDS, "deepspeed": _ENGINE}


def describe(options: dict[str, Any]) -> dict[str, Any]:
    """The options in plain types: functions and objects by name."""
    return {name: _plain(value) for name, value in options.items()}


def check_options(options: dict[str, Any]) -> None:
    """Refuse options that make no sense.

    Raises:
        PyroLVMError: naming the argument.
    """
    if not isinstance(options["objective"], Objective):
        raise _refused(
            "objective",
            "an objective of pyro_lvm.objectives",
            options["objective"],
            "Pass one made, for instance IWAE(num_particles=5).",
        )
    for name, least in _LEAST.items():
        value = options[name]
        if value is not None and (not _is_integer(value) or value < least):
            raise _refused(name, f"an integer >= {least}", value, f"Pass {name}={least} or more.")
    if not _is_number(options["lr"]) or options["lr"] < 0:
        raise _refused("lr", "a number >= 0", options["lr"], "Pass lr=1e-3.")
    cut = options["max_grad_norm"]
    if cut is not None and not (_is_number(cut) and cut > 0):  # below 0 it would go uphill
        hint = "Pass max_grad_norm=10.0, or None to leave gradients as they are."
        raise _refused("max_grad_norm", "a number above 0", cut, hint)
    if not _is_integer(options["seed"]):
        hint = "Pass seed=0; for another run each time, seed=random.randrange(2**32)."
        raise _refused("seed", "an integer", options["seed"], hint)
    if options["on_nonfinite"] not in ("raise", "skip"):
        raise _refused(
            "on_nonfinite", "'raise' or 'skip'", options["on_nonfinite"], "Pass one of the two."
        )
    if str(options["precision"]).startswith("16"):
        raise _refused(
            "precision",
            "a type with the range of float32",
            options["precision"],
            "Pass precision='bf16-mixed': log-weights overflow in float16.",
        )
    for name in ("patience", "restore_best"):
        if options[name] and options["validation"] is None:
            raise _refused(
                "validation", f"held-out data, for {name}", None, "Pass validation=0.1 or data."
            )


def launch(
    accelerator: str, devices: int | str | list[int], strategy: str | Strategy, precision: str
) -> Fabric:
    """Fabric, started, on as many devices as torchrun has started processes, if it has.

    Raises:
        PyroLVMError: a strategy that takes parameters apart, or what this machine does not have.
    """
    _check_whole(strategy)
    devices, num_nodes = _started_by_torchrun() or (devices, 1)
    wanted = {
        "accelerator": accelerator,
        "devices": devices,
        "strategy": strategy,
        "precision": precision,
    }
    try:
        fabric = Fabric(num_nodes=num_nodes, **wanted)
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        where, found = ", ".join(f"{n}={v!r}" for n, v in wanted.items()), str(error).rstrip(".!")
        hint = "Pass accelerator='auto', or see the arguments of Lightning Fabric."
        raise PyroLVMError(explain(where, "what this machine has", found, hint)) from error
    fabric.launch()
    return fabric


def check_covered(loss: nn.Module, parameters: Sequence[Tensor], world_size: int) -> None:
    """Refuse parameters that several processes would not keep equal.

    Raises:
        ParameterError: some are outside the modules that PyTorch keeps in step.
    """
    covered = {id(p) for p in loss.parameters()}
    outside = sum(id(p) not in covered for p in parameters)
    if world_size > 1 and outside:
        raise ParameterError(
            explain(
                "model and guide",
                "modules, when several processes train together",
                f"{outside} parameters in Pyro's store or outside the module that is called",
                "Make each program an nn.Module or PyroModule with a forward method.",
            )
        )


def _started_by_torchrun() -> tuple[int, int] | None:
    """Processes on this machine, and machines."""
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return None
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def _check_whole(strategy: str | Strategy) -> None:
    """Programs run outside the wrapped loss too: to be evaluated, to find their sites."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    reasons = [reason for part, reason in _APART.items() if part in name.lower()]
    if reasons:
        raise PyroLVMError(
            explain(
                "strategy",
                "one that leaves parameters and gradients whole in every process, such as 'ddp'",
                f"{name!r}, {reasons[0]}",
                "Share the optimiser's state: strategy='ddp', optimizer=lambda parameters: "
                "torch.distributed.optim.ZeroRedundancyOptimizer(parameters, torch.optim.Adam, "
                "lr=1e-3).",
            )
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if type(value) in (str, int, float, bool, type(None)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, Tensor) for item in value):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    if isinstance(value, Objective):
        kind, count, gradient = type(value).__name__, value.num_particles, value.gradient
        return f"{kind}(num_particles={count}, gradient={gradient!r})"
    return getattr(value, "__qualname__", type(value).__name__)


def _refused(name: str, expected: str, found: Any, hint: str) -> PyroLVMError:
    return PyroLVMError(explain(name, expected, repr(found), hint))
