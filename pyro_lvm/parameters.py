"""Where a program's parameters live: Pyro's store, or the modules themselves."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, explain

__all__ = ["allow_local_parameters", "check_fresh"]


def allow_local_parameters(program: object) -> None:
    """Let modules that were built with ``module_local_params`` off run with it on.

    Pyro makes the slot for local parameters only in modules built while it is on.
    """
    for part in program.modules() if isinstance(program, nn.Module) else ():
        if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
            part._pyro_context.param_state = {"params": {}, "constraints": {}}


def check_fresh(name: str, init: Any) -> None:
    """Refuse an old value that Pyro's store would silently prefer to a new initial one.

    Args:
        name: of the parameter.
        init: its initial value, or a function of no arguments that gives it.

    Raises:
        ParameterError: the store holds the name with another shape.
    """
    store = pyro.get_param_store()
    wanted = init() if callable(init) else init
    if name in store and isinstance(wanted, Tensor) and store[name].shape != wanted.shape:
        raise ParameterError(
            explain(
                f"parameter '{name}'",
                f"shape {tuple(wanted.shape)}, as its initial value has",
                f"{tuple(store[name].shape)}, left in Pyro's store by an earlier program",
                "Call pyro.clear_param_store() before training a new model.",
            )
        )
