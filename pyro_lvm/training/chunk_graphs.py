"""Chunks of particles by two graphs: what their programs sum up to, and the gradient of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_lvm.gradients import Relay
from pyro_lvm.particle_chunks import Chunk
from pyro_lvm.particles import Part, Particles
from pyro_lvm.random_state import RandomState
from pyro_lvm.shared_plates import SharedPlates
from pyro_lvm.training.kinds import Call
from pyro_lvm.training.recording import Recorded

__all__ = ["ChunkGraphs"]

Run = Callable[..., Sequence[Tensor]]
Compile = Callable[[Recorded, Sequence[Tensor]], Recorded]


class ChunkGraphs:
    """Makes chunks of particles without the programs, which are recorded once for each size.

    One graph gives the sums of log-probabilities and keeps nothing. In the backward pass another
    one starts from the same random numbers, and gives the gradient. Where the particles are no
    multiple of a chunk, the last chunk has two graphs of its own.

    Args:
        parameters: of the programs.
        faster: what is done to a graph, given inputs like those to come.
    """

    def __init__(self, parameters: Sequence[Tensor], faster: Compile) -> None:
        self._parameters = parameters
        self._faster = faster
        self._by_size: dict[int, _Graphs] = {}

    def __call__(self, chunk: Chunk, args: Any, kwargs: Any) -> Particles:
        """What :func:`pyro_lvm.particle_chunks.made_by` asks for.

        Raises:
            RuntimeError: the chunk is the first of its size, and cannot be recorded.
        """
        call = Call(args, kwargs)
        if chunk.size not in self._by_size:
            self._by_size[chunk.size] = self._recorded(chunk, call)
        graphs = self._by_size[chunk.size]
        inputs = [*call.tensors, *chunk.plates.draw(graphs.plates)]
        sums: Any = _Chunk.apply(graphs, inputs, chunk, *graphs.parameters)  # type: ignore[no-untyped-call]
        return _filled(graphs.outline, iter(sums))

    def _recorded(self, chunk: Chunk, call: Call) -> _Graphs:
        programs = _Programs(chunk, call, self._parameters)
        inputs, more = programs.inputs, [*programs.inputs, *programs.slopes, *programs.unit]
        with pyro.validation_enabled(False):
            sums = make_fx(programs.sums)(*inputs)
            gradients = make_fx(programs.gradients)(*more)
        graphs = _Graphs(
            self._faster(Recorded(sums, ()), inputs).run,
            self._faster(Recorded(gradients, programs.used), more).run,
            programs.used,
            programs.outline,
            programs.plates,
            programs.unit,
        )
        _check_random_numbers(graphs, inputs, more)
        return graphs


class _Graphs(NamedTuple):
    """What stands for the programs in a chunk.

    Attributes:
        sums: from tensors of the batch and indices of plates to what is kept of a chunk.
        gradients: from these, slopes in the sums, and the factor of a relay if there is one, to
            the gradients in ``parameters``, and the sums again.
        parameters: those that the sums have gradients in.
        outline: one particle, for all that is no sum.
        plates: those that a program draws a minibatch from.
        unit: the factor of a relay that changes nothing, if there is a relay.
    """

    sums: Run
    gradients: Run
    parameters: Sequence[Tensor]
    outline: Particles
    plates: Mapping[str, Any]
    unit: Sequence[Tensor]

    def factor(self, chunk: Chunk) -> Sequence[Tensor]:
        """By which the chunk's paths are multiplied, once it is known."""
        factor = chunk.relay.factor if isinstance(chunk.relay, Relay) else None
        return self.unit if factor is None else [factor[chunk.rows]]


class _Programs:
    """A chunk's programs, as functions of tensors.

    Attributes:
        inputs: of :meth:`sums`, the batch and the indices of plates.
        slopes: more inputs of :meth:`gradients`, and
        unit: the last of them.
        used: the parameters of the gradients, once these have been taken.
    """

    def __init__(self, chunk: Chunk, call: Call, parameters: Sequence[Tensor]) -> None:
        self._chunk, self._call, self._parameters = chunk, call, parameters
        plates = SharedPlates()
        with torch.no_grad():
            one = replace(chunk, rows=slice(0, 1), plates=plates, relay=None)
            self.outline = one(call.args, call.kwargs)
        _check_factors(self.outline)
        self.plates = plates.drawn
        self.inputs = [*call.tensors, *SharedPlates().draw(self.plates)]
        terms = _terms(self.outline, chunk.size)
        self.slopes = [term.new_zeros(term.shape) for term in terms]
        self.unit = _unit(self.outline, chunk)
        self.used: list[Tensor] = []

    def sums(self, *inputs: Tensor) -> list[Tensor]:
        return [term.detach() for term in self._run(inputs)]

    def gradients(self, *inputs: Tensor) -> list[Tensor]:
        """Of each parameter that is used, and the sums."""
        terms, slopes = self._run(inputs, factor=inputs[-1]), inputs[len(self.inputs) :]
        moved = [(term, slope) for term, slope in zip(terms, slopes) if term.requires_grad]
        of, along = zip(*moved) if moved else ((), ())
        found = torch.autograd.grad(of, self._parameters, along, allow_unused=True)
        known = [(p, g) for p, g in zip(self._parameters, found, strict=True) if g is not None]
        self.used[:] = [parameter for parameter, _ in known]
        return [*(gradient for _, gradient in known), *(term.detach() for term in terms)]

    def _run(self, inputs: Sequence[Tensor], factor: Tensor | None = None) -> list[Tensor]:
        rest = iter(inputs)
        args, kwargs = self._call.refilled(rest)
        chunk = replace(
            self._chunk,
            rows=slice(0, self._chunk.size),
            plates=SharedPlates(dict(zip(self.plates, rest))),
            relay=self._chunk.relay and Relay(factor),
        )
        return _terms(chunk(args, kwargs), chunk.size)


class _Chunk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, graphs: _Graphs, inputs: Sequence[Tensor], chunk: Chunk, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.graphs, ctx.inputs, ctx.chunk, ctx.random = graphs, inputs, chunk, RandomState()
        with torch.no_grad():
            return tuple(graphs.sums(*inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        graphs = ctx.graphs
        known = [tensor.contiguous() for tensor in (*slopes, *graphs.factor(ctx.chunk))]
        with ctx.random.again():
            results = graphs.gradients(*ctx.inputs, *known)
        return None, None, None, *results[: len(graphs.parameters)]


def _terms(particles: Particles, size: int) -> list[Tensor]:
    """All tensors that a loss reads of a chunk, ``(size, *batch)``."""
    parts = [term for part in particles.parts.values() for term in part]
    beside = [particles.log_score, particles.log_q_direct, *parts]
    present = [particles.log_p, particles.log_q, *(term for term in beside if term is not None)]
    return [term.expand(size, *term.shape[1:]) for term in present]


def _filled(outline: Particles, terms: Iterator[Tensor]) -> Particles:
    """The particles that such terms are of."""

    def of(term: Tensor | None) -> Tensor | None:
        return None if term is None else next(terms)

    return replace(
        outline,
        log_p=next(terms),
        log_q=next(terms),
        log_score=of(outline.log_score),
        log_q_direct=of(outline.log_q_direct),
        parts={name: Part(of(log_p), of(log_q)) for name, (log_p, log_q) in outline.parts.items()},
    )


def _unit(outline: Particles, chunk: Chunk) -> list[Tensor]:
    if chunk.relay is None or outline.layout is None:
        return []
    like = _terms(outline, chunk.size)[0]
    return [outline.layout.unfold(like.new_ones(like.shape))]


def _check_factors(outline: Particles) -> None:
    """Raise where an estimator would read tensors of the recorded batch, not of its own."""
    layout = outline.layout
    by_site = [*layout.model_scales.values(), *layout.guide_scales.values()] if layout else []
    masks = [site.mask for site in outline.guide.values()]
    if any(isinstance(factor, Tensor) for factor in (outline.scale, *by_site, *masks)):
        reason = "a tensor in poutine.scale, or in poutine.mask around draws of the guide"
        raise RuntimeError(f"{reason}, beside values in chunks")


def _check_random_numbers(
    graphs: _Graphs, inputs: Sequence[Tensor], more: Sequence[Tensor]
) -> None:
    """A compiler may draw in another order where there is more to do."""
    state = RandomState()
    with torch.no_grad():
        sums = graphs.sums(*inputs)
        with state.again():
            again = graphs.gradients(*more)[len(graphs.parameters) :]
    if not all(map(_of_same_draws, sums, again)):
        raise RuntimeError("random numbers that a compiled gradient draws in another order")


def _of_same_draws(one: Tensor, other: Tensor) -> bool:
    """Sums of other draws are as far from each other as particles are, and beyond rounding."""
    one, other = (term.nan_to_num(0.0, 0.0, 0.0) for term in (one, other))
    apart, size = (one - one.roll(1, 0)).abs().mean(), one.abs().mean()
    return bool((one - other).abs().mean() <= 0.1 * apart + 1e-5 * size)
