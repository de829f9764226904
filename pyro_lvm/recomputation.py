"""Intermediate values that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]

T = TypeVar("T")


def recomputed(function: Callable[..., T], *args: Any, near: Any = ()) -> T:
    """``function(*args)``, run again with the same random numbers in the backward pass.

    torch keeps the random state of the CPU and of the devices that tensors in ``near`` are on,
    whatever holds them. A program's random numbers may come from another: the current
    accelerator's state is kept too.

    Raises:
        RuntimeError: inside a recording of operations, where a second run would draw anew.

    Example:
        >>> w = torch.ones((), requires_grad=True)
        >>> value = recomputed(lambda count: (w * torch.randn(count)).sum(), 3)
        >>> value.backward()
        >>> torch.equal(w.grad, value.detach())
        True
    """
    if get_proxy_mode() is not None:
        raise RuntimeError("values in chunks, which are computed again in the backward pass")

    def run(_: Any, *args: Any) -> T:
        return function(*args)

    result: T = checkpoint(run, (_on_accelerator(), near), *args, use_reentrant=False)
    return result


def _on_accelerator() -> Tensor:
    """A tensor without entries, on the accelerator if one is in use."""
    return torch.empty(0, device="cuda" if torch.cuda.is_initialized() else None)
