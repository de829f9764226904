"""Where a program's parameters live: Pyro's store, or the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.nn import module as pyro_module
from pyro.poutine.runtime import _PYRO_STACK, am_i_wrapped
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, explain

__all__ = [
    "allow_local_parameters",
    "check_fresh",
    "check_own",
    "is_unheard",
    "scoped",
    "stepped_by_svi",
]


def allow_local_parameters(program: object) -> None:
    """Let modules that were built with ``module_local_params`` off run with it on.

    Pyro makes the slot for local parameters only in modules built while it is on.
    """
    for part in program.modules() if isinstance(program, nn.Module) else ():
        if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
            part._pyro_context.param_state = {"params": {}, "constraints": {}}


def check_fresh(name: str, init: Any) -> None:
    """Refuse an old value that Pyro's store would silently prefer to a new initial one.

    A module computes with its own parameters whatever the store holds: those are left to
    :func:`check_own`.

    Args:
        name: of the parameter.
        init: its initial value, or a function of no arguments that gives it.

    Raises:
        ParameterError: the store holds the name with another shape.
    """
    store = pyro.get_param_store()
    if name not in store or isinstance(init, nn.Parameter):
        return
    wanted = init() if callable(init) else init
    if isinstance(wanted, Tensor) and store[name].shape != wanted.shape:
        raise ParameterError(
            explain(
                f"parameter '{name}'",
                f"shape {tuple(wanted.shape)}, as its initial value has",
                f"{tuple(store[name].shape)}, left in Pyro's store by an earlier program",
                "Call pyro.clear_param_store() before training a new model.",
            )
        )


def check_own(name: str, init: Any) -> None:
    """Refuse a module's parameter in whose place the store holds, and would train, another.

    Args:
        name: of the parameter.
        init: what the program states as its initial value.

    Raises:
        ParameterError: the store holds the name for another module.
    """
    stored = dict(pyro.get_param_store().named_parameters())
    if not isinstance(init, nn.Parameter) or stored.get(name, init) is init:
        return
    raise ParameterError(
        explain(
            f"parameter '{name}'",
            "that of the module in use",
            "the parameter of another module, left in Pyro's store",
            "Call pyro.clear_param_store() before a new model, and give the networks of model "
            "and guide different names; or use modules, not pyro.param.",
        )
    )


def stepped_by_svi() -> Any:
    """The trace in which ``SVI.step`` collects what it will train, or None outside of it."""
    outer: Any = _PYRO_STACK[0] if _PYRO_STACK else None
    return outer if getattr(outer, "param_only", False) else None


def is_unheard(program: PyroModule) -> bool:
    """Whether the statements of a module's parameters would change nothing.

    A ``PyroModule`` states each parameter whenever a network is read from it, a tenth of a small
    step. With ``module_local_params`` that is for handlers only: outside of any, and with Pyro's
    validation off, it can be called as the plain module that it also is, within :func:`scoped`.
    """
    return (
        not am_i_wrapped()
        and not is_validation_enabled()
        and pyro_module._MODULE_LOCAL_PARAMS  # the setting, without an import by name each step
        and type(program).__call__ is PyroModule.__call__
        and not program._pyro_context.active
        and not _needs_statements(program)
    )


def _needs_statements(program: nn.Module) -> bool:
    """Random attributes are cached within a call, and plates subsample parameters."""
    parts = [program]
    for part in parts:  # which grow
        if isinstance(part, PyroModule) and (
            part._pyro_samples or any(dim is not None for _, dim in part._pyro_params.values())
        ):
            return True
        if part._modules:
            parts += [inner for inner in part._modules.values() if inner is not None]
    return False


def scoped(statement: Callable[..., Any], program: PyroModule) -> Callable[..., Any]:
    """A statement of a parameter within a module's own scope, where its call would have it."""

    def inside(*args: Any, **kwargs: Any) -> Any:
        with program._pyro_context:
            return statement(*args, **kwargs)

    return inside
