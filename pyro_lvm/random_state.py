"""Random numbers that leave no trace, or come again: torch's state, kept and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

__all__ = ["RandomState", "kept_random_state"]


def kept_random_state() -> AbstractContextManager[None]:
    """Puts the random state of the CPU, and of every GPU once one is in use, back at its end.

    Of every one, since programs need not be on the current GPU.

    Example:
        >>> state = torch.get_rng_state()
        >>> with kept_random_state():
        ...     noise = torch.randn(3)
        >>> torch.equal(torch.get_rng_state(), state)
        True
    """
    return torch.random.fork_rng(_gpus(), device_type="cuda")


class RandomState:
    """The random numbers from here on, of the CPU and of every GPU once one is in use.

    Example:
        >>> state = RandomState()
        >>> first = torch.rand(3)
        >>> with state.again():
        ...     torch.equal(torch.rand(3), first)
        True
    """

    def __init__(self) -> None:
        self._of_cpu = torch.get_rng_state()
        self._of_gpus = [torch.cuda.get_rng_state(i) for i in _gpus()]

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same ones within; what follows goes on from where it was."""
        with kept_random_state():
            torch.set_rng_state(self._of_cpu)
            for i, state in enumerate(self._of_gpus):
                torch.cuda.set_rng_state(state, i)
            yield


def _gpus() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
