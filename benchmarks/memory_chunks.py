"""Memory and time of a step in chunks, of particles or of mixing draws, beside all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean, median
from time import process_time
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.peak_memory import held_memory, peak_memory
from benchmarks.programs import NETWORKS, Guide, Model, Sizes, data
from pyro_lvm.guides import SemiImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE, SIVI
from pyro_lvm.training import CompiledLoss

__all__ = ["Measured", "measure", "section"]

NETWORK, CHUNK, REPETITIONS, ROUNDS = "digits", 50, 3, 5
TEXT = """## Steps in chunks, on the CPU

{network}: {sizes} on a batch of {batch}. Held is what waits between the forward and the backward
pass, peak the most at any time of a step, both above what there was before, by the allocator's
record: means of {repetitions} repetitions and the largest deviation from them. Time is that of the
CPU over a step of as many draws at once that takes its turn in the same round: the median of
{rounds} rounds and their range. Compiled is a chunk's programs and their gradient (`CompiledLoss`).

An array is one number for each draw and datum, here {array:.2f} MiB. For a bound of any form the
least is the peak of one chunk and one array, the derivatives by the log-weights. Ours holds two
arrays, by log p and by log q; with "dreg" a third, the factors of the paths. Beside them are the
random state of each chunk, {state} bytes, and the gradients of a chunk's parameters. Mixing draws
are summed within a chunk: no array grows with J. Not in the record are the nodes of the autograd
graph, some 34 KiB a chunk (K = 5000, once, by `mallinfo2`).

{table}"""

Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Measured:
    """One way to take a step.

    Attributes:
        step: what was drawn, and how many at a time.
        held: bytes between the passes, of each repetition.
        peak: bytes at most.
        time: CPU time over that of all draws at once, of each round.
    """

    step: str
    held: list[int]
    peak: list[int]
    time: list[float]


def section(draws: int) -> str:
    """Of the page on memory: ``draws`` in chunks, and at once."""
    sizes = NETWORKS[NETWORK]
    return TEXT.format(
        network=NETWORK,
        sizes=sizes,
        batch=sizes.batch_size,
        repetitions=REPETITIONS,
        rounds=ROUNDS,
        array=draws * sizes.batch_size * 4 / 2**20,
        state=torch.get_rng_state().numel(),
        table=_table([*measure(sizes, draws)]),
    )


def measure(sizes: Sizes, draws: int, backend: str = "inductor") -> Iterator[Measured]:
    """Steps of one chunk's draws, of ``draws`` in chunks, and of ``draws`` at once, the last."""
    pyro.set_rng_seed(0)
    for losses in (
        _by_particles(sizes, draws, "reparam", backend),
        _by_particles(sizes, draws, "dreg", backend),
        _by_mixing_draws(sizes, draws),
    ):
        for loss in losses.values():
            loss().backward()  # finds the plates, and makes the gradients
        times = _interleaved(losses)
        for (step, loss), time in zip(losses.items(), times, strict=True):
            repeated = range(REPETITIONS)
            held = [held_memory(loss) for _ in repeated]
            peak = [peak_memory(lambda loss=loss: loss().backward()) for _ in repeated]
            yield Measured(step, held, peak, [a / b for a, b in zip(time, times[-1], strict=True)])


def _interleaved(losses: dict[str, Loss]) -> list[list[float]]:
    """Seconds of CPU time of each, a round after the other."""
    rounds = [[_seconds(loss) for loss in losses.values()] for _ in range(ROUNDS)]
    return [[*times] for times in zip(*rounds, strict=True)]


def _seconds(loss: Loss) -> float:
    started = process_time()
    loss().backward()
    return process_time() - started


def _table(rows: list[Measured]) -> str:
    lines = [
        f"| {row.step} | {_spread(row.held)} | {_spread(row.peak)} | {median(row.time):.2f} "
        f"({min(row.time):.2f} to {max(row.time):.2f}) |"
        for row in rows
    ]
    head = ["| step | held, MiB | peak, MiB | time |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *lines])


def _by_particles(sizes: Sizes, draws: int, gradient: str, backend: str) -> dict[str, Loss]:
    model, guide, x = Model(sizes), Guide(sizes), data(sizes, torch.device("cpu"))
    in_chunks = IWAE(draws, gradient, chunk_particles=CHUNK)
    losses: dict[str, Any] = {
        f"K = {CHUNK}": IWAE(CHUNK, gradient)(model, guide),
        f"K = {draws}, {CHUNK} at a time": in_chunks(model, guide),
        f"K = {draws}, {CHUNK} at a time, compiled": CompiledLoss(
            in_chunks, model, guide, backend=backend
        ),
        f"K = {draws}": IWAE(draws, gradient)(model, guide),
    }
    return {f"IWAE {gradient}, {name}": lambda loss=loss: loss(x) for name, loss in losses.items()}


def _by_mixing_draws(sizes: Sizes, draws: int) -> dict[str, Loss]:
    model = VAE(sizes.in_features, sizes.latent_features, sizes.hidden)
    guide = SemiImplicitGuide(
        in_features=sizes.in_features,
        latent_features=sizes.latent_features,
        hidden=sizes.hidden,
        noise_features=sizes.latent_features,
        noise_hidden=sizes.hidden[:1],
    )
    x = data(sizes, torch.device("cpu"))

    def loss(count: int, chunk: int | None = None) -> Loss:
        module: Any = SIVI(num_mixing=count, chunk_mixing=chunk)(model, guide)
        return lambda: module(x)

    return {
        f"SIVI reparam, J = {CHUNK}": loss(CHUNK),
        f"SIVI reparam, J = {draws}, {CHUNK} at a time": loss(draws, CHUNK),
        f"SIVI reparam, J = {draws}": loss(draws),
    }


def _spread(values: list[int]) -> str:
    middle = mean(values)
    return f"{middle / 2**20:.2f} ± {max(abs(v - middle) for v in values) / 2**20:.2f}"
