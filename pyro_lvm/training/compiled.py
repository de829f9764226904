"""Losses whose training step is recorded once as a graph, then compiled and replayed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from time import perf_counter
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from pyro_lvm.errors import explain
from pyro_lvm.nn import check_choice, check_size
from pyro_lvm.objective import Objective
from pyro_lvm.particle_chunks import made_by
from pyro_lvm.tracing import Program
from pyro_lvm.training.chunk_graphs import ChunkGraphs
from pyro_lvm.training.kinds import KNOWN, Call, state_of, surroundings
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.recording import (
    Recorded,
    graph_inputs,
    is_recordable,
    level_of_caller,
    reason_of,
    recorded,
    settled,
    trained,
    undisturbed,
)
from pyro_lvm.training.replaying import compiled, replayed, separated
from pyro_lvm.training.updating import StateMissing, Unrecordable, Update

__all__ = ["BACKENDS", "CompiledLoss", "make_loss"]

BACKENDS = ("inductor", "graph")

Step = Recorded | ChunkGraphs


class CompiledLoss(nn.Module):
    """The loss of two programs and its gradient, as one compiled graph for each kind of batch.

    Stands for ``objective(model, guide)`` under any torch optimiser: ``forward`` is the loss,
    differentiable once. The first call with a batch of new shapes, dtypes or devices, or with
    other modules in training mode, runs the programs, records every tensor operation of the
    loss and of its gradient, and compiles them; later calls replay the result, without Pyro.
    Parameters are read, and random numbers drawn, anew each time; schedules go on. On CUDA,
    "inductor" replays a step as CUDA graphs (by torch's documentation; not yet run on a GPU).

    What an objective keeps from step to step is in the graph too: chains move at each replay,
    and discriminators learn, each step of their optimiser being one operation of the graph.

    What Python decides in a program is decided once, at the recording: a branch on the value of
    a tensor cannot be recorded. Nor can shapes that depend on values, mixing draws in chunks
    (``chunk_mixing``), and what an objective of another's keeps, unless it says
    ``keeps_in_place``. Such losses are computed as they are, with one warning that names the line.
    Of an objective with ``chunk_particles`` the programs are recorded for one chunk, and its
    gradient; the bound is computed as it is, and so is all of it beside tensors in
    ``poutine.scale``, or in ``poutine.mask`` around the guide's draws. Arguments and data are
    checked at the recording only. Without gradients nothing is compiled. In several processes each
    has graphs of its own.

    Args:
        objective: whose loss it is.
        model: the generative program.
        guide: the program that draws its latent variables.
        backend: "inductor" compiles, half a minute each time, some seconds where torch's cache
            on disk has the same graph; "graph" replays the recorded operations one by one, and
            needs no compiler.
        cache_size: kinds of batches to keep; the one not used for longest is dropped.

    Attributes:
        compile_seconds: time spent on recording and compiling so far.
        is_eager: whether it goes on uncompiled.

    Raises:
        ProgramError: an unknown backend, or ``cache_size`` below 1.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.objectives import IWAE
        >>> model, guide = VAE(6, 2, (8,)), AmortizedNormal(in_features=6, latent_features=2)
        >>> loss = CompiledLoss(IWAE(5, "dreg"), model, guide, backend="graph")
        >>> optimizer = torch.optim.Adam(loss.parameters())
        >>> for x in torch.rand(3, 20, 6).round():
        ...     optimizer.zero_grad()
        ...     loss(x).backward()
        ...     optimizer.step()
        >>> loss.num_graphs
        1
    """

    def __init__(
        self,
        objective: Objective,
        model: Program,
        guide: Program,
        *,
        backend: str = "inductor",
        cache_size: int = 8,
    ) -> None:
        super().__init__()
        check_choice("backend", backend, BACKENDS)
        self.objective = objective
        self.loss: Any = objective(model, guide)
        self.backend = backend
        self.cache_size = check_size("cache_size", cache_size)
        self.is_eager = False
        self.compile_seconds = 0.0
        self._is_recordable = is_recordable(objective)
        self._steps: OrderedDict[Hashable, Step] = OrderedDict()
        self._walked: list[nn.Module] = []

    @property
    def num_graphs(self) -> int:
        """How many kinds of batches are kept."""
        return len(self._steps)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, a scalar, of the batch that the programs are called with."""
        if torch.is_grad_enabled() and not self.is_eager:
            loss = self._replayed(Call(args, kwargs))
            if loss is not None:
                return loss
        return self.eagerly(*args, **kwargs)

    def eagerly(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as it is without compilation."""
        loss: Tensor = self.loss(*args, **kwargs)
        return loss

    def updated(self, update: Update, count: float, args: Any, kwargs: Any) -> Tensor | None:
        """Loss over ``count`` and norm ``(2,)`` of a step taken whole; None without a graph.

        Raises:
            StateMissing: the optimiser has no state yet.
            Unrecordable: there is no graph with its step in it; there may be one without.
        """
        call = Call(args, kwargs)
        step = None if self.is_eager else self._found(call, update)
        if not isinstance(step, Recorded):
            return None
        with torch.no_grad():
            (values,) = step.run(*self._inputs(call), *update.inputs(count))
        self.objective.step += 1
        return values

    def _replayed(self, call: Call) -> Tensor | None:
        """The loss by a graph, or None where there can be none."""
        step = self._found(call)
        if isinstance(step, ChunkGraphs):
            return self._in_chunks(step, call)
        if step is None:
            return None
        loss = replayed(step, self._inputs(call))
        self.objective.step += 1
        return loss

    def _in_chunks(self, graphs: ChunkGraphs, call: Call) -> Tensor:
        """The loss of particles that are made by graphs, some at a time."""
        with made_by(graphs), settled(self.objective):
            return self.eagerly(*call.args, **call.kwargs)

    def _inputs(self, call: Call) -> list[Tensor]:
        return graph_inputs(self.objective, call)

    def _refuses(self, call: Call) -> bool:
        strange = [leaf for leaf in call.leaves if not isinstance(leaf, KNOWN)]
        if strange:
            self._give_up(f"an argument of type {type(strange[0]).__name__}")
        elif any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in call.leaves):
            self._give_up("an argument that needs a gradient")
        elif not self._is_recordable:
            self._give_up(f"{type(self.objective).__name__}, which keeps a state of its own")
        return self.is_eager

    @property
    def _parts_of_chunks(self) -> bool | None:
        """Whether graphs of chunks give log-probabilities by site, where there are chunks."""
        return self.objective.reads_parts() if self.objective.is_in_chunks else None

    def _found(self, call: Call, update: Update | None = None) -> Step | None:
        """The step on this kind of batch, or None where it cannot be recorded."""
        if self._refuses(call):
            return None
        self.objective.before_step(self.loss.model, self.loss.guide, call.args, call.kwargs)
        kind = (*call.kind, *surroundings(), self.objective.decided, self._parts_of_chunks)
        tensors = update and (update.settings, *map(id, update.state))
        step = self._steps.pop((key := (kind, tensors, *state_of(self._walked))), None)
        if step is None:
            self._walked = [*self.modules()]
            key = kind, tensors, *state_of(self._walked)
            step = self._steps.pop(key, None) or self._made(call, update)
        if step is not None:
            self._steps[key] = step  # the last one used is the last one to go
        return step

    def _made(self, call: Call, update: Update | None) -> Step | None:
        started = perf_counter()
        parameters = trained(self.objective, self.loss, call.args, call.kwargs)
        try:
            step = self._compiled(parameters, call, update)
        except StateMissing:
            raise
        except Exception as error:  # whatever torch raises for what it cannot record
            if update is not None:
                raise Unrecordable from error
            self._give_up(reason_of(error))
            return None
        self.compile_seconds += perf_counter() - started
        if len(self._steps) >= self.cache_size:
            self._steps.popitem(last=False)
        return step

    def _compiled(self, parameters: Sequence[Tensor], call: Call, update: Update | None) -> Step:
        if not parameters:
            raise RuntimeError("no parameters, as of functions that use networks unstated")
        if self.objective.is_in_chunks:
            return self._chunk_graphs(parameters, call, update)
        undone = nullcontext() if update is None else update.undone(parameters)
        with undisturbed(self.objective, self.loss), undone:
            args, kwargs = call.args, call.kwargs
            step = recorded(self.objective, self.loss, parameters, args, kwargs, update)
        inputs = [*self._inputs(call), *(update.inputs(1.0) if update else ())]
        if update is not None:
            return self._by_backend(step, inputs)
        with undisturbed(self.objective, self.loss):
            return separated(self._by_backend(step, inputs), inputs)

    def _chunk_graphs(
        self, parameters: Sequence[Tensor], call: Call, update: Update | None
    ) -> ChunkGraphs:
        if update is not None:
            raise Unrecordable
        graphs = ChunkGraphs(parameters, lambda *step: separated(self._by_backend(*step), step[1]))
        with undisturbed(self.objective, self.loss):
            self._in_chunks(graphs, call)
        return graphs

    def _by_backend(self, step: Recorded, inputs: Sequence[Tensor]) -> Recorded:
        return step if self.backend == "graph" else compiled(step, inputs)

    def _give_up(self, reason: str) -> None:
        """Go on without graphs, and say why, once."""
        self.is_eager = True
        expected = "programs and an objective that can be recorded as one graph"
        hint = "Nothing else changes. Take the line out of the program, or leave compile= out."
        text = explain("compile", expected, f"{reason}; going on uncompiled", hint)
        warn(text, stacklevel=level_of_caller())


def make_loss(objective: Objective, programs: Programs, backend: bool | str) -> nn.Module:
    """The loss to train by, compiled if asked for; True is the first of the backends.

    Raises:
        ProgramError: an unknown backend.
    """
    if not backend:
        loss: Any = objective  # Pyro types its programs as modules; functions will do
        made: nn.Module = loss(programs.model, programs.guide)
        return made
    backend = BACKENDS[0] if backend is True else backend
    check_choice("compile", backend, BACKENDS)
    return CompiledLoss(objective, programs.model, programs.guide, backend=backend)
