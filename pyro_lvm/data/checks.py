"""Data that can be used, or an error that says where they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

import torch
from torch import Tensor

from pyro_lvm.checks import first_indices
from pyro_lvm.errors import DataError, explain

__all__ = ["check_data", "check_name"]

T = TypeVar("T")


def check_data(tensor: Tensor, name: str, mask: Tensor | None = None) -> None:
    """Raise unless ``tensor`` has values, all of them finite where they are observed.

    Args:
        tensor: data of any dtype.
        name: what to call it in the error.
        mask: broadcastable to ``tensor``, True = observed; NaN elsewhere is allowed.

    Raises:
        DataError: an empty batch, a mask of another shape or dtype, or NaN or infinite
            values, with their number and the first places.

    Example:
        >>> x = torch.tensor([[1.0, float("nan")]])
        >>> check_data(x, "x", mask=~x.isnan())
        >>> check_data(x, "x")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: x: expected finite data, got NaN or infinite: 1 values, ...
    """
    if tensor.numel() == 0:
        found = f"an empty batch of shape {tuple(tensor.shape)}"
        hint = "Drop empty batches, and check the file or filter they come from."
        raise DataError(explain(name, "at least one datum", found, hint))
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    bad = ~torch.isfinite(tensor)
    if mask is not None:
        bad = bad & _expanded(mask, tensor, name)
    if bool(bad.any()):
        found = f"NaN or infinite: {first_indices(bad)}"
        hint = "Remove them, or pass a mask (True = observed) that hides them."
        raise DataError(explain(name, "finite data", found, hint))


def _expanded(mask: Tensor, tensor: Tensor, name: str) -> Tensor:
    try:
        if mask.dtype == torch.bool:
            return mask.expand_as(tensor)
    except RuntimeError:
        pass
    raise DataError(
        explain(
            f"mask of {name}",
            f"a bool tensor broadcastable to {tuple(tensor.shape)}, True = observed",
            f"{mask.dtype} of shape {tuple(mask.shape)}",
            "Make it as ~x.isnan().",
        )
    )


def check_name(name: str, known: Mapping[str, T], kind: str) -> T:
    """What is ``known`` under ``name``.

    Args:
        name: what was asked for.
        known: what there is.
        kind: what to call it in the error.

    Raises:
        DataError: nothing is, with the closest name.

    Example:
        >>> check_name("digit", {"digits": 1, "mnist": 2}, "data set")
        Traceback (most recent call last):
        ...
        pyro_lvm.errors.DataError: data set: expected one of ['digits', 'mnist'], got 'digit'.
        Try: Pass 'digits'.
    """
    if name not in known:
        close = get_close_matches(name, known, n=1) or sorted(known)
        expected, hint = f"one of {sorted(known)}", f"Pass {close[0]!r}."
        raise DataError(explain(kind, expected, repr(name), hint))
    return known[name]
