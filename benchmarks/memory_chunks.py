"""Memory of a whole step in chunks, of particles or of mixing draws, beside all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.peak_memory import held_memory, peak_memory
from benchmarks.programs import NETWORKS, Guide, Model, Sizes, data
from pyro_lvm.guides import SemiImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE, SIVI

__all__ = ["Measured", "measure", "section"]

NETWORK, CHUNK, REPETITIONS = "digits", 50, 3
TEXT = """## Steps in chunks, on the CPU

{network}: {sizes} on a batch of {batch}. Held is what waits between the forward and the backward
pass, peak the most at any time of a step, both above what there was before, by the allocator's
record: means of {repetitions} repetitions and the largest deviation from them.

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
    """Bytes of each repetition.

    Attributes:
        step: what was drawn, and how many at a time.
        held: between the passes.
        peak: at most.
    """

    step: str
    held: list[int]
    peak: list[int]


def section(draws: int) -> str:
    """Of the page on memory: ``draws`` in chunks, and at once."""
    sizes = NETWORKS[NETWORK]
    return TEXT.format(
        network=NETWORK,
        sizes=sizes,
        batch=sizes.batch_size,
        repetitions=REPETITIONS,
        array=draws * sizes.batch_size * 4 / 2**20,
        state=torch.get_rng_state().numel(),
        table=_table([*measure(sizes, draws)]),
    )


def measure(sizes: Sizes, draws: int) -> Iterator[Measured]:
    """Steps of one chunk's draws, of ``draws`` in chunks, and of ``draws`` at once."""
    for losses, symbol in ((_by_particles, "K"), (_by_mixing_draws, "J")):
        for count, chunk in ((CHUNK, None), (draws, CHUNK), (draws, None)):
            found = [_measured(losses(sizes, count, chunk), r) for r in range(REPETITIONS)]
            how = f"{symbol} = {count}" + (f", {chunk} at a time" if chunk else "")
            for name in found[0]:
                held, peak = zip(*(each[name] for each in found), strict=True)
                yield Measured(f"{name}, {how}", [*held], [*peak])


def _table(rows: list[Measured]) -> str:
    by_objective = sorted(rows, key=lambda row: row.step.split(",")[0])
    lines = [f"| {row.step} | {_spread(row.held)} | {_spread(row.peak)} |" for row in by_objective]
    return "\n".join(["| step | held, MiB | peak, MiB |", "| --- | --- | --- |", *lines])


def _measured(losses: dict[str, Loss], seed: int) -> dict[str, tuple[int, int]]:
    pyro.set_rng_seed(seed)
    for loss in losses.values():
        loss().backward()  # finds the plates, and makes the gradients
    return {name: _memory(loss) for name, loss in losses.items()}


def _memory(loss: Loss) -> tuple[int, int]:
    """Bytes between the passes, and at most."""
    return held_memory(loss), peak_memory(lambda: loss().backward())


def _by_particles(sizes: Sizes, draws: int, chunk: int | None) -> dict[str, Loss]:
    model, guide, x = Model(sizes), Guide(sizes), data(sizes, torch.device("cpu"))
    losses: dict[str, Any] = {
        f"IWAE {gradient}": IWAE(draws, gradient, chunk_particles=chunk)(model, guide)
        for gradient in ("reparam", "dreg")
    }
    return {name: lambda loss=loss: loss(x) for name, loss in losses.items()}


def _by_mixing_draws(sizes: Sizes, draws: int, chunk: int | None) -> dict[str, Loss]:
    model = VAE(sizes.in_features, sizes.latent_features, sizes.hidden)
    guide = SemiImplicitGuide(
        in_features=sizes.in_features,
        latent_features=sizes.latent_features,
        hidden=sizes.hidden,
        noise_features=sizes.latent_features,
        noise_hidden=sizes.hidden[:1],
    )
    loss: Any = SIVI(num_mixing=draws, chunk_mixing=chunk)(model, guide)
    x = data(sizes, torch.device("cpu"))
    return {"SIVI reparam": lambda: loss(x)}


def _spread(values: list[int]) -> str:
    middle = mean(values)
    return f"{middle / 2**20:.2f} ± {max(abs(v - middle) for v in values) / 2**20:.2f}"
