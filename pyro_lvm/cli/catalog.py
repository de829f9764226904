"""What can be named on the command line, found in the packages that export it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from pyro.nn import PyroModule

from pyro_lvm import data, guides, models, objectives
from pyro_lvm.cli.imported import imported, is_path
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.objective import Objective

__all__ = ["KINDS", "build", "default_gradient", "lines", "pick", "read_data"]

Maker = Callable[..., Any]


def _exported(package: ModuleType, base: type) -> dict[str, Maker]:
    """The concrete subclasses of ``base`` that ``package`` exports, by name."""
    named = {name: getattr(package, name) for name in package.__all__}
    return {
        name: value
        for name, value in named.items()
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }


KINDS: Mapping[str, Mapping[str, Maker]] = {
    "objectives": _exported(objectives, Objective),
    "guides": _exported(guides, PyroModule),
    "models": _exported(models, PyroModule),
}


def lines() -> dict[str, dict[str, str]]:
    """Everything that can be named, by kind and name, with its first line of documentation."""
    classes = {
        kind: {name: _first_line(maker) for name, maker in known.items()}
        for kind, known in KINDS.items()
    }
    return {**classes, "data": data.available()}


def _first_line(maker: Maker) -> str:
    """Without the marks of links and formulas, which are for the documentation."""
    line = (inspect.getdoc(maker) or "").partition("\n")[0]
    return re.sub(r":\w+:`(?:~[\w.]+\.)?([^`]*)`|``", r"\1", line)


def pick(kind: str, name: str) -> Maker:
    """The class or loader called ``name``, or at that import path.

    Raises:
        PyroLVMError: there is none; the message names the nearest.

    Example:
        >>> pick("objectives", "IWEA")
        Traceback (most recent call last):
        pyro_lvm.errors.PyroLVMError: objectives: expected one of ...
    """
    known = KINDS[kind]
    if name in known:
        return known[name]
    if is_path(name):
        return _checked(kind, name, imported(kind, name))
    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise PyroLVMError(
        explain(
            kind,
            f"one of {sorted(known)}, or your own as module.Class",
            repr(name),
            f"{hint}See pyro-lvm list.",
        )
    )


def _checked(kind: str, name: str, maker: Maker) -> Maker:
    is_objective = inspect.isclass(maker) and issubclass(maker, Objective)
    if kind != "objectives" or is_objective:
        return maker
    hint = "Extend pyro_lvm.objectives.Objective and write bound_per_datum."
    raise PyroLVMError(explain(name, "a subclass of Objective", f"{maker!r}", hint))


def default_gradient(name: str) -> str:
    """The gradient of the objective called ``name`` where none is given: dreg if it takes that.

    Example:
        >>> default_gradient("IWAE"), default_gradient("TVO")
        ('dreg', 'score')
    """
    objective: Any = pick("objectives", name)
    return "dreg" if "dreg" in objective.takes else str(objective.takes[0])


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def build(kind: str, name: str, options: Mapping[str, Any], **fixed: Any) -> Any:
    """Call what is called ``name`` with the user's ``options`` and ``fixed`` arguments.

    Raises:
        PyroLVMError: an option that it does not take, or an argument that options cannot give.
    """
    return _called(pick(kind, name), kind, name, options, fixed)


def _called(
    maker: Maker, kind: str, name: str, options: Mapping[str, Any], fixed: Mapping[str, Any]
) -> Any:
    place = name if is_path(name) else f"pyro_lvm.{kind}.{name}"
    parameters = inspect.signature(maker).parameters
    takes = set(parameters)
    unknown = sorted(set(options) - takes)
    if unknown:
        raise PyroLVMError(
            explain(
                f"options of {name}",
                f"some of {sorted(takes - set(fixed))}",
                repr(unknown[0]),
                f"Leave {unknown[0]!r} out, or see help({place}).",
            )
        )
    given = {key: value for key, value in fixed.items() if key in takes} | dict(options)
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in _REST]
    if missing := [n for n in needed if given.get(n) is None]:
        expected, found = "a choice that options can build", f"one that needs {missing[0]!r}"
        hint = f"Use {place} in Python."
        if is_path(name):
            option = f"--{kind.removesuffix('s')}.options.{missing[0]}"
            hint = f"Pass {option}, or give it a default."
        raise PyroLVMError(explain(name, expected, found, hint))
    return maker(**given)


def read_data(name: str, options: Mapping[str, Any]) -> data.DataSplits:
    """The data set called ``name``, or what the function at that import path returns.

    Raises:
        PyroLVMError: there is none, it needs other options, or returns something else.
    """
    if not is_path(name):
        return data.load(name, **options)
    splits = _called(imported("data", name), "data", name, options, {})
    if isinstance(splits, data.DataSplits):
        return splits
    expected, found = "a pyro_lvm.data.DataSplits", f"a {type(splits).__name__}"
    raise PyroLVMError(
        explain(name, expected, found, "Return DataSplits(name, train, validation, test).")
    )
