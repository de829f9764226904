"""What users have written themselves, by import path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["imported", "is_path"]


def is_path(name: str) -> bool:
    """Whether a name is one: ``module.Class``."""
    return "." in name


def imported(kind: str, path: str) -> Callable[..., Any]:
    """The class or function at ``module.Class``, from the current folder as under ``python -m``.

    What the module itself raises when it is imported goes on as it is.

    Raises:
        PyroLVMError: no such module, or nothing to call of that name in it.

    Example:
        >>> imported("models", "pyro_lvm.models.VAE").__name__
        'VAE'
        >>> imported("models", "pyro_lvm.models.VEA")
        Traceback (most recent call last):
        pyro_lvm.errors.PyroLVMError: models: expected a class or function of pyro_lvm.models, ...
    """
    place, _, name = path.rpartition(".")
    module = _module(kind, place)
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    others = [n for n in dir(module) if n[0] != "_" and callable(getattr(module, n))]
    close = get_close_matches(name, others, n=1, cutoff=0.4)
    hint = f"Did you mean {place}.{close[0]}?" if close else f"Write it in {place}."
    what = f"{name!r}, of type {type(found).__name__}" if hasattr(module, name) else repr(name)
    raise PyroLVMError(explain(kind, f"a class or function of {place}", what, hint))


def _module(kind: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # one that the user's module wants
        hint = f"Run in the folder that {name.partition('.')[0]} is in, or install it."
        found = f"no module {error.name!r} in {here} or installed"
        raise PyroLVMError(explain(kind, f"a module {name!r}", found, hint)) from error
