"""Random numbers that leave no trace: torch's state is put back after them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

__all__ = ["kept_random_state"]


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
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices, device_type="cuda")
