"""What a step on the CPU holds in memory, from the allocator's own record."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile

__all__ = ["held_memory", "peak_memory"]

Step = Callable[[], object]


def peak_memory(step: Step) -> int:
    """The most bytes at once, above what there was before, in tensors and kernels' own buffers."""
    return max(accumulate(_changes(step), initial=0))


def held_memory(step: Step) -> int:
    """Bytes that are there after a step for as long as its result is."""
    return sum(_changes(step))


def _changes(step: Step) -> list[int]:
    """Bytes of each allocation, negative where they are given back, in order."""
    gc.collect()  # what is left of earlier steps is not given back in this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = step()
    del result  # not before the record ends
    events = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return [nbytes for _, nbytes in changes]
