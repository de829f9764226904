"""Intermediate values that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states

__all__ = ["RandomState", "recomputed"]

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


class RandomState:
    """The random numbers from here on, of the CPU and of the devices that tensors are on.

    Args:
        near: holds tensors on these devices.

    Example:
        >>> state = RandomState(())
        >>> first = torch.rand(3)
        >>> with state.again():
        ...     torch.equal(torch.rand(3), first)
        True
    """

    def __init__(self, near: Any) -> None:
        self._cpu = torch.get_rng_state()
        self._devices, self._states = get_device_states(_on_accelerator(), near)

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same ones within; what follows goes on from where it was."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._cpu)
            set_device_states(self._devices, self._states)
            yield


def _on_accelerator() -> Tensor:
    """A tensor without entries, on the accelerator if one is in use."""
    return torch.empty(0, device="cuda" if torch.cuda.is_initialized() else None)
