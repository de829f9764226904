"""Layers on MNIST: one, two and five, bottom-up and ladder, and auxiliary variables.

Pictures are binarised anew for each batch; the same short schedule for all. Judged on every
hundredth test digit by 5000 importance-weighted draws, and by the KL and the active units of each
layer. Latents of 64, 32, 16, 8 and 4 as in the ladder paper, in smaller networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from benchmarks.hierarchical_training import (
    Programs,
    Run,
    Schedule,
    auxiliary,
    bottom_up,
    judged,
    ladder,
    train,
)
from pyro_lvm.data import DataSplits, mnist
from pyro_lvm.models import ADGM, SDGM

__all__ = ["RUNS", "run"]

PIXELS, SIZES = 784, (64, 32, 16, 8, 4)
HIDDEN = ((200, 200), (100,), (100,), (100,), (100,))
SCHEDULE = Schedule(steps=2000, batch_size=100, rate=4e-3, every=100, num_samples=5000)


def _layers(make: Callable[..., Programs], count: int, **options: bool) -> partial[Programs]:
    return partial(make, PIXELS, SIZES[:count], HIDDEN[:count], **options)


def _auxiliary(make: Callable[..., Any]) -> Programs:
    """Its tanh networks need a start at the mean picture; the others do better without."""
    return auxiliary(make, PIXELS, size=64, width=200, data_mean=data().train.mean(0))


RUNS = {
    "VAE": Run(_layers(ladder, 1)),
    "VAE, warm-up, batch norm": Run(_layers(ladder, 1, batch_norm=True), warms_up=True),
    "IWAE, K = 5": Run(_layers(ladder, 1), num_particles=5),
    "ADGM": Run(partial(_auxiliary, ADGM)),
    "SDGM": Run(partial(_auxiliary, SDGM)),
    "LVAE, 2 layers": Run(_layers(ladder, 2, batch_norm=True), warms_up=True),
    "5 layers, bottom-up": Run(_layers(bottom_up, 5)),
    "5 layers, bottom-up, warm-up, batch norm": Run(
        _layers(bottom_up, 5, batch_norm=True), warms_up=True
    ),
    "LVAE, 5 layers": Run(_layers(ladder, 5, batch_norm=True), warms_up=True),
    "LVAE, 5 layers, free bits": Run(
        _layers(ladder, 5, batch_norm=True), warms_up=True, free_bits=0.5
    ),
}


@cache
def data() -> DataSplits:
    return mnist()


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair and judge it on test digits; nats per digit, and numbers of units."""
    schedule = replace(SCHEDULE, steps=steps or SCHEDULE.steps)
    return judged(train(RUNS[name], data(), schedule, seed), data(), schedule)
