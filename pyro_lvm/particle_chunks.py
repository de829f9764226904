"""Many particles, some of them at a time: a step in the memory of one chunk.

A bound is a function of K log-weights, one number each for a particle and datum. The programs
run for one chunk of particles after the other and leave the sums that log-weights are made of,
``log_p`` and ``log_q``, and what a gradient estimator asks for beside them. In the backward pass
each chunk is run once more, with the same random numbers, so that neither its networks' values
nor its draws are kept: what grows with K is a few arrays ``(K, *batch)``, of which one, the
log-weights, waits for the backward pass. The gradient is exact. It costs a second forward pass,
and an encoder, whose output all particles share, runs once a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.particles import Part, Particles
from pyro_lvm.recomputation import recomputed
from pyro_lvm.shared_plates import SharedPlates

__all__ = ["Chunk", "in_chunks", "keeping_draws", "made_by"]

Run = Callable[..., Particles]
Make = Callable[..., Particles]
"""From a :class:`Chunk` and the programs' arguments to its particles."""


@dataclass(frozen=True)
class Chunk:
    """Some of the particles, to be made more than once.

    Attributes:
        run: from the programs' arguments, ``num_particles`` and ``relay`` to particles.
        rows: which of all they are.
        plates: give or keep the minibatch.
        relay: called with a value and ``rows``, the particles that it is of.
        dropped: fields that are not kept.
    """

    run: Run
    rows: slice
    plates: SharedPlates
    relay: Callable[..., Tensor] | None
    dropped: Sequence[str]

    @property
    def size(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def __call__(self, args: Any, kwargs: Any) -> Particles:
        relay = self.relay and partial(self.relay, rows=self.rows)
        with self.plates:
            found = self.run(args, kwargs, num_particles=self.size, relay=relay)
        nothing: dict[str, Any] = {name: {} for name in self.dropped}
        return replace(found, **nothing)


def in_chunks(
    run: Run,
    args: Any,
    kwargs: Any,
    num_particles: int,
    size: int,
    relay: Callable[..., Tensor] | None = None,
    by_site: bool = False,
) -> Particles:
    """All particles, at most ``size`` at a time, on one minibatch; with the first chunk's sites.

    Args:
        run: see :class:`Chunk`.
        args: positional arguments of the programs.
        kwargs: their keyword arguments.
        num_particles: K.
        size: of a chunk.
        relay: see :class:`Chunk`.
        by_site: keep log-probabilities by site too.
    """
    dropped = () if _KEEPS_DRAWS.get() else ("values",) if by_site else ("values", "parts")
    plates, make = SharedPlates(), _MAKE.get()
    chunks: list[Particles] = []
    for start in range(0, num_particles, size):
        rows = slice(start, min(start + size, num_particles))
        found = make(Chunk(run, rows, plates, relay, dropped), args, kwargs)
        chunks.append(replace(found, model={}, guide={}) if chunks else found)
        plates = SharedPlates(plates.indices)
    refused: dict[str, Any] = {name: _NotKept() for name in dropped}
    return replace(_joined(chunks), **refused)


@contextmanager
def made_by(make: Make) -> Iterator[None]:
    """Chunks within are made by another than the programs, run again in the backward pass."""
    token = _MAKE.set(make)
    try:
        yield
    finally:
        _MAKE.reset(token)


@contextmanager
def keeping_draws() -> Iterator[None]:
    """Particles drawn within have ``values`` and ``parts``, chunks or not."""
    token = _KEEPS_DRAWS.set(True)
    try:
        yield
    finally:
        _KEEPS_DRAWS.reset(token)


_KEEPS_DRAWS = ContextVar("chunks keep draws", default=False)
_MAKE: ContextVar[Make] = ContextVar("what makes chunks", default=recomputed)


class _NotKept(Mapping[str, Any]):
    """What chunks drop; an error where it is read."""

    def _refuse(self, *_: object) -> Any:
        raise ProgramError(
            explain(
                "particles in chunks",
                "a loss of their log-weights, log_p and log_q",
                "a look at values or parts, which are not kept",
                "Leave chunk_particles out, or call objective.particles(model, guide, ...).",
            )
        )

    __getitem__ = __iter__ = __len__ = _refuse


def _joined(chunks: Sequence[Particles]) -> Particles:
    def rows(read: Callable[[Particles], Tensor | None]) -> Tensor | None:
        return _all_rows(chunks, [read(particles) for particles in chunks])

    def part(name: str) -> Part:
        return Part(rows(lambda c: c.parts[name].log_p), rows(lambda c: c.parts[name].log_q))

    first = chunks[0]
    return replace(
        first,
        log_p=torch.cat([particles.log_p for particles in chunks]),
        log_q=torch.cat([particles.log_q for particles in chunks]),
        log_score=rows(lambda c: c.log_score),
        log_q_direct=rows(lambda c: c.log_q_direct),
        parts={name: part(name) for name in first.parts},
        values={n: torch.cat([c.values[n] for c in chunks]) for n in first.values},
    )


def _all_rows(chunks: Sequence[Particles], terms: Sequence[Tensor | None]) -> Tensor | None:
    """Terms ``(chunk or 1, *batch)`` of each chunk as one of all particles; None if absent."""
    present = [
        term.expand(len(particles.log_p), *term.shape[1:])
        for particles, term in zip(chunks, terms, strict=True)
        if term is not None
    ]
    return torch.cat(present) if present else None
