"""Where a program's parameters live: Pyro's store, or the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.poutine.runtime import am_i_wrapped
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, explain

__all__ = ["allow_local_parameters", "check_fresh", "is_unheard", "scoped"]


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


def is_unheard(program: PyroModule) -> bool:
    """Whether the statements of a module's parameters would change nothing.

    A ``PyroModule`` states each parameter whenever a network is read from it, a tenth of a small
    step. With ``module_local_params`` that is for handlers only: outside of any, and with Pyro's
    validation off, it can be called as the plain module that it also is, within :func:`scoped`.
    """
    return (
        not am_i_wrapped()
        and not is_validation_enabled()
        and pyro.settings.get("module_local_params")
        and type(program).__call__ is PyroModule.__call__
        and not program._pyro_context.active
        and not _needs_statements(program)
    )


def _needs_statements(program: nn.Module) -> bool:
    """Random attributes are cached within a call, and plates subsample parameters."""
    parts: list[nn.Module | None] = [program]
    while parts:
        part = parts.pop()
        if isinstance(part, PyroModule) and (
            part._pyro_samples or any(dim is not None for _, dim in part._pyro_params.values())
        ):
            return True
        if part is not None:
            parts.extend(part._modules.values())
    return False


def scoped(statement: Callable[..., Any], program: PyroModule) -> Callable[..., Any]:
    """A statement of a parameter within a module's own scope, where its call would have it."""

    def inside(*args: Any, **kwargs: Any) -> Any:
        with program._pyro_context:
            return statement(*args, **kwargs)

    return inside
