"""The most memory that a step on the CPU holds at once, from the allocator's own record."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile

__all__ = ["peak_memory"]


def peak_memory(step: Callable[[], object]) -> int:
    """Bytes above what there was before, in tensors and in the kernels' own buffers."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((nbytes for _, nbytes in changes), initial=0))
