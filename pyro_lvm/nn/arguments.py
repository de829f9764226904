"""Sizes and choices of constructors, checked, and the names of latent sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from numbers import Real
from typing import Any

from torch import Tensor

from pyro_lvm.errors import ProgramError, explain

__all__ = [
    "Hidden",
    "check_choice",
    "check_positive",
    "check_size",
    "hidden_by_layer",
    "is_number",
    "named_sizes",
]

Hidden = Sequence[int] | Sequence[Sequence[int]]


def named_sizes(latent_features: int | Sequence[int] | Mapping[str, int]) -> dict[str, int]:
    """Latent sites and their sizes, by the naming rule that models and guides share.

    Example:
        >>> named_sizes(16), named_sizes((8, 4)), named_sizes({"a": 2})
        ({'z': 16}, {'z1': 8, 'z2': 4}, {'a': 2})
    """
    if isinstance(latent_features, Mapping):
        sizes = dict(latent_features)
    elif isinstance(latent_features, Sequence) and len(latent_features) != 1:
        sizes = {f"z{level}": size for level, size in enumerate(latent_features, start=1)}
    else:
        alone = latent_features if isinstance(latent_features, int) else latent_features[0]
        sizes = {"z": alone}
    if not sizes:
        hint = "Pass a size, sizes from the data upwards, or sizes by site."
        raise ProgramError(explain("latent_features", "at least one size", "none", hint))
    return {name: check_size(f"latent_features of '{name}'", n) for name, n in sizes.items()}


def hidden_by_layer(hidden: Hidden, num_layers: int) -> list[tuple[int, ...]]:
    """Hidden sizes of each stochastic layer's network: the same for all, or one tuple each.

    Example:
        >>> hidden_by_layer((200, 200), 2)
        [(200, 200), (200, 200)]
        >>> hidden_by_layer([(200, 200), (100, 100)], 2)
        [(200, 200), (100, 100)]
    """
    per_layer = [tuple(sizes) for sizes in hidden if isinstance(sizes, Sequence)]
    if not per_layer:
        return [tuple(size for size in hidden if not isinstance(size, Sequence))] * num_layers
    if len(per_layer) != num_layers or len(hidden) != num_layers:
        raise ProgramError(
            explain(
                "hidden",
                f"sizes, or one tuple of sizes for each of {num_layers} stochastic layers",
                repr(hidden),
                "Pass hidden=(200, 200), or [(200, 200), (100, 100)] for two layers.",
            )
        )
    return per_layer


def check_size(name: str, size: Any) -> int:
    """``size`` if it is an integer >= 1.

    Raises:
        ProgramError: it is not.

    Example:
        >>> check_size("in_features", 784)
        784
        >>> check_size("in_features", 0)
        Traceback (most recent call last):
            ...
        pyro_lvm.errors.ProgramError: in_features: expected an integer >= 1, got 0.
        Try: Check in_features.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ProgramError(explain(name, "an integer >= 1", repr(size), f"Check {name}."))
    return size


def is_number(value: Any) -> bool:
    """Whether it is a real number, in a tensor perhaps.

    Example:
        >>> is_number(0.5), is_number("0.5"), is_number(None)
        (True, False, False)
    """
    return isinstance(value, Real | Tensor) and not isinstance(value, bool)


def check_positive(name: str, value: Any, instead: str) -> float:
    """``value`` if it is a number above 0, and finite.

    Args:
        name: of the argument.
        value: to be checked.
        instead: what the error says to pass.

    Raises:
        ProgramError: it is not.

    Example:
        >>> check_positive("rate", 30, "30.0")
        30.0
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < inf:
        raise ProgramError(
            explain(name, "a number above 0", repr(value), f"Pass {name}={instead}.")
        )
    return float(value)


def check_choice(name: str, choice: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise :class:`ProgramError` unless ``choice`` is one of ``known``.

    Example:
        >>> check_choice("noise", "normal", ("normal", "uniform"))
        >>> check_choice("noise", "gaussian", ("normal", "uniform"))
        Traceback (most recent call last):
            ...
        pyro_lvm.errors.ProgramError: noise: expected one of ['normal', 'uniform'], got 'gaussian'.
        Try: Pass noise='normal'.
    """
    if choice not in known:
        first = next(iter(known))
        raise ProgramError(
            explain(name, f"one of {list(known)}", repr(choice), f"Pass {name}={first!r}.")
        )
