"""CPU time until a fixed test bound is passed: ours, Pyro's and NumPyro's, K = 5.

All start at the same parameters and see the same batches, binarised anew, under Adam with the
same learning rate. The mean test bound (IWAE, 100 draws) is looked at every few steps, off the
clock; the time is that of the steps until it passes the target, without the first two, in which
steps are recorded and compiled and which are shown apart, in seconds on the clock. "digits" is
64-100-100-16, "mnist" 784-200-200-50. NumPyro runs where it is installed.

    python -m benchmarks.time_to_bound digits --seeds 3
    PYRO_LVM_DATA=folder python -m benchmarks.time_to_bound mnist --seeds 3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter, process_time
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.kept import Run
from benchmarks.programs import NETWORKS, Guide, Model
from benchmarks.suite import Suite
from benchmarks.time_to_bound_methods import METHODS
from pyro_lvm.data import digits, mnist
from pyro_lvm.objectives import IWAE
from pyro_lvm.random_state import kept_random_state

__all__ = ["SUITE", "Race"]


@dataclass(frozen=True)
class Race:
    """One network on one data set.

    Attributes:
        network: of ``NETWORKS``.
        data: makes the splits.
        target: nats, of the mean test bound.
        budget: steps, at most.
        every: steps between two looks at the bound.
        thinning: of the test pictures, each so-manieth is used.
    """

    network: str
    data: Callable[[], Any]
    target: float
    budget: int
    every: int
    thinning: int = 1

    RUNS = tuple(METHODS)

    def run(self, name: str, seed: int, steps: int | None = None) -> Run:
        """Seconds and steps until the target, and the bound there."""
        pyro.set_rng_seed(seed)
        sizes = NETWORKS[self.network]
        model, guide = Model(sizes), Guide(sizes)
        trainer = METHODS[name](model, guide)
        splits = self.data()
        test = splits.transform(
            splits.test[:: self.thinning].flatten(1), torch.Generator().manual_seed(0)
        )
        batches = _batches(splits, sizes.batch_size, seed)
        start = perf_counter()
        for _ in range(2):  # Adam makes its state, and then the whole step is compiled
            trainer.step(next(batches))
        found: dict[str, float] = {"first steps, s": perf_counter() - start}
        seconds, bound = 0.0, float("-inf")
        for count in range(2, steps or self.budget):
            x = next(batches)
            start = process_time()
            trainer.step(x)
            seconds += process_time() - start
            if count % self.every == 0:
                trainer.sync()
                bound = _test_bound(model, guide, test)
                if bound > self.target:
                    found |= {"CPU s to the bound": seconds, "steps": count}
                    break
        return found | {"ms a step": 1e3 * seconds / count, "bound": bound}


def _batches(splits: Any, batch_size: int, seed: int) -> Iterator[Tensor]:
    """The same for every method: whole batches of each pass, in random order, without end."""
    generator = torch.Generator().manual_seed(seed)
    train = splits.train.flatten(1)
    while True:
        order = torch.randperm(len(train), generator=generator)
        for rows in order.split(batch_size)[: len(train) // batch_size]:
            yield splits.transform(train[rows], generator)


def _test_bound(model: Model, guide: Guide, test: Tensor) -> float:
    with kept_random_state():
        torch.manual_seed(0)
        return IWAE(100).bound(model, guide, test).mean().item()


SUITE = Suite(
    "time_to_bound",
    __doc__,
    {
        "digits": Race("digits", partial(digits, num_validation=0), -23.2, 4000, 50),
        "mnist": Race("mnist", mnist, -125.0, 3000, 50, thinning=50),
    },
)

if __name__ == "__main__":
    SUITE.main()
