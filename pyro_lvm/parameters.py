"""Where a program's parameters live: Pyro's store, or the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, explain

__all__ = ["allow_local_parameters", "check_fresh", "unannounced"]


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


def unannounced(program: Callable[..., Any]) -> Callable[..., Any]:
    """``program`` without its statements of parameters, where nobody would hear them.

    A ``PyroModule`` states each parameter whenever a network is read from it, a tenth of a small
    step. With ``module_local_params`` that is for handlers only: outside of any, and with Pyro's
    validation off, the module is called as the plain one that it also is.
    """
    if am_i_wrapped() or not isinstance(program, PyroModule) or not _is_plain(program):
        return program
    return _Plain(program)


def _is_plain(program: PyroModule) -> bool:
    """Whether nothing but handlers depends on the statements."""
    settings = pyro.settings.get("module_local_params"), pyro.settings.get("validate_poutine")
    return (
        settings == (True, False)
        and type(program).__call__ is PyroModule.__call__
        and not program._pyro_context.active
        and not any(_needs_statements(part) for part in program.modules())
    )


def _needs_statements(part: nn.Module) -> bool:
    """Random attributes are cached within a call, and plates subsample parameters."""
    return isinstance(part, PyroModule) and (
        bool(part._pyro_samples) or any(dim is not None for _, dim in part._pyro_params.values())
    )


class _Plain(Messenger):
    """Calls a ``PyroModule`` as an ``nn.Module``; ``pyro.param`` in it keeps its scope."""

    def __init__(self, program: PyroModule) -> None:
        super().__init__()
        self.program = program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        with self:
            return nn.Module.__call__(self.program, *args, **kwargs)

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        fn, scope = msg["fn"], self.program._pyro_context

        def scoped(*args: Any, **kwargs: Any) -> Any:
            with scope:
                return fn(*args, **kwargs)

        msg["fn"] = scoped
