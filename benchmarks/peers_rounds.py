"""Steps timed in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import quantiles
from time import perf_counter, process_time

from benchmarks.peers_steps import Step

__all__ = ["Times", "first_calls", "ratio", "timed_in_turns"]

Times = dict[str, list[float]]
"""Milliseconds of CPU time a step by contender, one entry a round."""

LEAST_MS = 20.0


def first_calls(steps: Mapping[str, Step]) -> dict[str, float]:
    """Seconds on the clock until each has made its first step: recording and compiling."""
    return {name: _seconds(step) for name, step in steps.items()}


def timed_in_turns(steps: Mapping[str, Step], rounds: int, least_ms: float = LEAST_MS) -> Times:
    """CPU time of all threads, by contender and round.

    The contenders take turns in random order. A turn is one step that is not timed, as the
    caches still hold another's data, and then enough of them to last ``least_ms``.
    """
    counts = {name: ceil(least_ms / max(_turn(step, 3), 1e-3)) for name, step in steps.items()}
    times: Times = {name: [] for name in steps}
    order = list(steps)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            times[name].append(_turn(steps[name], counts[name]))
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile over rounds of ours / theirs."""
    low, middle, high = quantiles([a / b for a, b in zip(ours, theirs)], n=4, method="inclusive")
    return low, middle, high


def _turn(step: Step, count: int) -> float:  # milliseconds a step
    step()
    start = process_time()
    for _ in range(count):
        step()
    return 1e3 * (process_time() - start) / count


def _seconds(step: Step) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start
