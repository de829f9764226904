"""Random state: seeds that depend on a position in training, saving and restoring."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["generator_at", "mix", "random_state", "seeded", "set_random_state"]


def mix(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else.

    Example:
        >>> mix(0, "order", 1) == mix(0, "order", 1), mix(0, "order", 1) == mix(0, "order", 2)
        (True, False)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_at(*key: int | str) -> torch.Generator:
    """A fresh CPU generator seeded by ``key``."""
    return torch.Generator().manual_seed(mix(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch, NumPy and Python by ``key`` inside, and leave them as they were outside."""
    before = random_state()
    try:
        seed = mix(*key)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        set_random_state(before)


def random_state() -> dict[str, Any]:
    """The state of every generator, in tensors and plain types."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        states = state["cuda"][: torch.cuda.device_count()]
        torch.cuda.set_rng_state_all([s.cpu() for s in states])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
