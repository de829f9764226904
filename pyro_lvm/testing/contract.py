"""What all contract checks share: the error, and the classes to check."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pkgutil import walk_packages

import pyro
import torch
from pyro.nn import PyroModule

from pyro_lvm.errors import explain
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.random_state import kept_random_state

__all__ = ["ROUNDING", "ContractError", "discover", "require", "strict"]

ROUNDING = 1e-4
"""Of float32 sums over features and networks, absolute and relative."""


class ContractError(AssertionError):
    """A model or guide that does not keep what the others rely on.

    Example:
        >>> from pyro_lvm.testing import check_model
        >>> class Mute(PyroModule):
        ...     def forward(self, x=None, *, size=1):
        ...         return torch.zeros(size, 2)
        >>> try:
        ...     check_model(Mute())
        ... except ContractError as error:
        ...     print(error)
        model: expected a site that observes x, got [].
        Try: Pass the data to the site by obs=x.
    """


def discover(package: str, base: type = PyroModule) -> list[type]:
    """The public classes of a package's modules that are subclasses of ``base``, by name.

    Classes that another one extends are left out: a class is a base or a choice, not both.

    Args:
        package: import name of the package.
        base: what they have in common.

    Example:
        >>> "AmortizedNormal" in [found.__name__ for found in discover("pyro_lvm.guides")]
        True
    """
    root = import_module(package)
    names = [found.name for found in walk_packages(root.__path__, f"{package}.")]
    modules = [import_module(name) for name in sorted(names)]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    classes = {c for c in public if isinstance(c, type) and issubclass(c, base)}
    leaves = [c for c in classes if not any(c in d.__mro__[1:] for d in classes)]
    return sorted(leaves, key=lambda c: c.__name__)


def require(holds: bool, where: str, expected: str, found: object, hint: str) -> None:
    """Raise a three-part :class:`ContractError` unless ``holds``."""
    if not holds:
        raise ContractError(explain(where, expected, str(found), hint))


@contextmanager
def strict(*programs: object) -> Iterator[None]:
    """Seeded, warnings as errors, Pyro's checks on, parameters local, the store set aside."""
    with ExitStack() as stack:
        stack.enter_context(kept_random_state())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(pyro.validation_enabled())
        stack.enter_context(pyro.settings.context(module_local_params=True))
        stack.enter_context(pyro.get_param_store().scope())
        warnings.simplefilter("error")
        torch.manual_seed(0)
        for program in programs:
            allow_local_parameters(program)
        yield
