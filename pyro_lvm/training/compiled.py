"""Training steps recorded once as a graph of tensor operations, then compiled and replayed."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any
from warnings import warn

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

import pyro_lvm
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_choice, check_size
from pyro_lvm.objective import Objective
from pyro_lvm.tracing import Program
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.programs import Programs

__all__ = ["BACKENDS", "CompiledLoss", "make_loss"]

BACKENDS = ("inductor", "graph")

_STATELESS = {"step", "max_plate_nesting", "enumerates"}
_CONSTANTS = (bool, int, float, str, type(None), torch.dtype, torch.device)
_FABRIC = Fabric.__module__.partition(".")[0]
_LIBRARIES = [
    Path(str(library.__file__)).parent for library in (torch, pyro, sys.modules[_FABRIC], pyro_lvm)
]


@dataclass(frozen=True)
class _Graph:
    """What computes the loss and its gradients from the tensors of a batch."""

    run: Callable[..., Sequence[Tensor]]
    parameters: Sequence[Tensor]


class CompiledLoss(nn.Module):
    """The loss of two programs and its gradient, as one compiled graph for each kind of batch.

    Stands for ``objective(model, guide)`` under any torch optimiser: ``forward`` is the loss,
    differentiable once. The first call with a batch of new shapes, dtypes or devices, or with
    other modules in training mode, runs the programs, records every tensor operation of the
    loss and of its gradient, and compiles them; later calls replay the result, without Pyro.
    Parameters are read, and random numbers drawn, anew each time. A ``beta`` schedule goes on.

    What Python decides in a program is decided once, at the recording: a branch on the value of
    a tensor cannot be recorded, nor can an objective that keeps more than its step (chains,
    discriminators). Such losses are computed as they are, with one warning that names the line.
    Arguments and data are checked at the recording only. Without gradients nothing is compiled.

    Args:
        objective: whose loss it is.
        model: the generative program.
        guide: the program that draws its latent variables.
        backend: "inductor" compiles, half a minute each time; "graph" replays the recorded
            operations one by one, and needs no compiler.
        cache_size: kinds of batches to keep; the one not used for longest is dropped.

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
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    @property
    def num_graphs(self) -> int:
        """How many kinds of batches are kept."""
        return len(self._graphs)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, a scalar, of the batch that the programs are called with."""
        graph = self._graph(args, kwargs) if torch.is_grad_enabled() else None
        if graph is None:
            eager: Tensor = self.loss(*args, **kwargs)
            return eager
        inputs = self._inputs(args, kwargs)
        self.objective.step += 1
        loss: Tensor = _Replay.apply(graph, inputs, *graph.parameters)  # type: ignore[no-untyped-call]
        return loss

    def _inputs(self, args: Any, kwargs: Any) -> list[Tensor]:
        """Tensors of the batch, and the factor of a warm-up."""
        tensors = [leaf for leaf in _leaves(args, kwargs) if isinstance(leaf, Tensor)]
        if not callable(self.objective.beta):
            return tensors
        device = tensors[0].device if tensors else None
        return [*tensors, torch.tensor(self.objective.beta_now(), device=device)]

    def _graph(self, args: Any, kwargs: Any) -> _Graph | None:
        """The graph of this kind of batch, or None where there can be none."""
        if self.is_eager or self._refuses(args, kwargs):
            return None
        key = self._key(args, kwargs)
        if key not in self._graphs:
            parameters = self._checked_parameters(args, kwargs)
            try:
                self._graphs[key] = self._recorded(args, kwargs, parameters)
            except Exception as error:  # whatever torch raises for what it cannot record
                self._give_up(_told(error))
                return None
            if len(self._graphs) > self.cache_size:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _refuses(self, args: Any, kwargs: Any) -> bool:
        leaves = _leaves(args, kwargs)
        strange = [leaf for leaf in leaves if not isinstance(leaf, (Tensor, *_CONSTANTS))]
        if strange:
            self._give_up(f"an argument of type {type(strange[0]).__name__}")
        elif any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            self._give_up("an argument that needs a gradient")
        elif set(self.objective.state_dict()) != _STATELESS:
            self._give_up(f"{type(self.objective).__name__}, which keeps a state of its own")
        return self.is_eager

    def _key(self, args: Any, kwargs: Any) -> Hashable:
        leaves, structure = tree_flatten((args, kwargs))
        kinds = [
            (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        modes = [module.training for module in self.modules()]
        trained = [(id(parameter), parameter.requires_grad) for parameter in self.parameters()]
        held = [id(buffer) for buffer in self.buffers()]
        rest = (_autocast(), torch.get_default_dtype())
        return str(structure), *kinds, *modes, *trained, *held, *rest

    def _checked_parameters(self, args: Any, kwargs: Any) -> list[Tensor]:
        """What has a gradient, from one run with all checks, as without compilation."""
        with (
            _undisturbed(self.objective, self),
            torch.no_grad(),
            poutine.trace(param_only=True) as seen,
        ):
            self.loss(*args, **kwargs)
        sites: list[Any] = [*seen.trace.nodes.values()]
        stated: list[Any] = [site["value"] for site in sites if site["type"] == "param"]
        unconstrained = [p.unconstrained() if hasattr(p, "unconstrained") else p for p in stated]
        every: dict[int, Tensor] = {id(p): p for p in [*self.parameters(), *unconstrained]}
        return [p for p in every.values() if p.requires_grad]

    def _recorded(self, args: Any, kwargs: Any, parameters: Sequence[Tensor]) -> _Graph:
        leaves, structure = tree_flatten((args, kwargs))
        used: list[Tensor] = []

        def step(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs)
            filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            again, named = tree_unflatten(filled, structure)
            with _with_beta(self.objective, next(rest, None)):
                loss = self.loss(*again, **named)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            used[:] = [p for p, gradient in zip(parameters, found) if gradient is not None]
            return [loss.detach(), *(gradient for gradient in found if gradient is not None)]

        inputs = self._inputs(args, kwargs)
        with _undisturbed(self.objective, self), pyro.validation_enabled(False):
            run: Callable[..., Any] = make_fx(step)(*inputs)
            if self.backend == "inductor":
                run = torch.compile(run, dynamic=False)
                with torch.no_grad():
                    run(*inputs)
        return _Graph(run, used)

    def _give_up(self, reason: str) -> None:
        """Go on without graphs, and say why, once."""
        self.is_eager = True
        expected = "programs and an objective that can be recorded as one graph"
        hint = "Nothing else changes. Take the line out of the program, or leave compile= out."
        warn(explain("compile", expected, f"{reason}; going on uncompiled", hint), stacklevel=4)


def make_loss(
    objective: Objective, programs: Programs, backend: bool | str, world_size: int
) -> nn.Module:
    """The loss to train by, compiled if asked for; True is the first of the backends.

    Raises:
        ProgramError: an unknown backend, or several processes.
    """
    if not backend:
        loss: Any = objective  # Pyro types its programs as modules; functions will do
        made: nn.Module = loss(programs.model, programs.guide)
        return made
    if world_size > 1:
        hint = "Leave compile= out, or train in one process."
        raise ProgramError(explain("compile", "one process", f"{world_size}", hint))
    backend = BACKENDS[0] if backend is True else backend
    check_choice("compile", backend, BACKENDS)
    return CompiledLoss(objective, programs.model, programs.guide, backend=backend)


class _Replay(torch.autograd.Function):
    """The loss of one replay, whose gradients are known with it."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, inputs: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        with torch.no_grad():
            loss, *ctx.gradients = graph.run(*inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return None, None, *(gradient * slope for gradient in ctx.gradients)


def _leaves(args: Any, kwargs: Any) -> list[Any]:
    return tree_flatten((args, kwargs))[0]


def _autocast() -> tuple[Hashable, ...]:
    devices = ("cpu", "cuda")
    return tuple((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices)


@contextmanager
def _undisturbed(objective: Objective, module: nn.Module) -> Iterator[None]:
    """Leaves random numbers, buffers and the objective's step as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    step, buffers = objective.step, [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        objective.step = step
        for buffer, before in buffers:
            buffer.copy_(before)


@contextmanager
def _with_beta(objective: Objective, beta: Any) -> Iterator[None]:
    """A tensor in the place of the warm-up's factor."""
    own = objective.beta
    if beta is not None:
        objective.beta = lambda step: beta
    try:
        yield
    finally:
        objective.beta = own


def _told(error: Exception) -> str:
    """What went wrong, and the line of the program where it did."""
    reason = (str(error) or type(error).__name__).strip().split("\n")[0]
    frames = extract_tb(error.__traceback__)
    own = [f for f in frames if not any(Path(f.filename).is_relative_to(p) for p in _LIBRARIES)]
    return f"{reason} at {own[-1].filename}:{own[-1].lineno}, {own[-1].line!r}" if own else reason
