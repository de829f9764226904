"""Layers on digits: one, two and five, bottom-up and ladder, and auxiliary variables.

8 by 8 digits, binarised anew for each batch; the same number of Adam steps for all. Judged on
test digits by importance-weighted draws, and by the KL and the active units of each layer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.hierarchical_training import (
    Run,
    Schedule,
    auxiliary,
    bottom_up,
    judged,
    ladder,
    train,
)
from pyro_lvm.data import digits
from pyro_lvm.models import ADGM, SDGM

__all__ = ["RUNS", "run"]

PIXELS, HIDDEN = 64, (100,)
ONE, TWO, FIVE = (16,), (16, 8), (16, 12, 8, 6, 4)
SCHEDULE = Schedule(steps=1000, batch_size=100, rate=2e-3, every=2, num_samples=1000)

_ladder = partial(ladder, PIXELS, hidden=HIDDEN)
_bottom_up = partial(bottom_up, PIXELS, hidden=HIDDEN)
_auxiliary = partial(auxiliary, pixels=PIXELS, size=16, width=100)

RUNS = {
    "1 layer": Run(partial(_ladder, ONE)),
    "1 layer, IWAE, K = 5": Run(partial(_ladder, ONE), num_particles=5),
    "ADGM": Run(partial(_auxiliary, ADGM)),
    "SDGM": Run(partial(_auxiliary, SDGM)),
    "2 layers, bottom-up": Run(partial(_bottom_up, TWO)),
    "2 layers, ladder": Run(partial(_ladder, TWO)),
    "5 layers, bottom-up": Run(partial(_bottom_up, FIVE)),
    "5 layers, bottom-up, warm-up, batch norm": Run(
        partial(_bottom_up, FIVE, batch_norm=True), warms_up=True
    ),
    "5 layers, bottom-up, warm-up, batch norm, free bits": Run(
        partial(_bottom_up, FIVE, batch_norm=True), warms_up=True, free_bits=0.5
    ),
    "5 layers, ladder": Run(partial(_ladder, FIVE)),
    "5 layers, ladder, warm-up": Run(partial(_ladder, FIVE), warms_up=True),
    "5 layers, ladder, warm-up, batch norm": Run(
        partial(_ladder, FIVE, batch_norm=True), warms_up=True
    ),
    "5 layers, ladder, warm-up, batch norm, free bits": Run(
        partial(_ladder, FIVE, batch_norm=True), warms_up=True, free_bits=0.5
    ),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair and judge it on test digits; nats per digit, and numbers of units."""
    data, schedule = digits(num_validation=0), replace(SCHEDULE, steps=steps or SCHEDULE.steps)
    return judged(train(RUNS[name], data, schedule, seed), data, schedule)
