"""Recorded steps, compiled, and replayed as a loss whose gradient is known with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import once_differentiable
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pyro_lvm.training.recording import Recorded

__all__ = ["compiled", "options_for", "replayed"]

Run = Callable[..., Sequence[Tensor]]


def compiled(step: Recorded, inputs: Sequence[Tensor]) -> Recorded:
    """The step compiled for such inputs, by one run of it; on CUDA as CUDA graphs.

    Inductor takes the graph as it is: ``torch.compile`` would look at every tensor again before
    each replay, a tenth of a millisecond, where the caller knows that the graph fits. Without the
    context, which ``torch.compile`` would make, torch looks for no such graph on disk.
    """
    graph: Any = step.run
    options = options_for([*inputs, *step.parameters])
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))
    with torch.no_grad():
        with tracing(context):
            run: Run = torch._inductor.compile(graph, [*inputs], options=options)
        run = _kept(run) if options else run
        run(*inputs)
    return step._replace(run=run)


def options_for(tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Of inductor: CUDA graphs, which launch a step as a whole, where the tensors are on CUDA."""
    return {"triton.cudagraphs": True} if any(t.is_cuda for t in tensors) else {}


def replayed(step: Recorded, inputs: Sequence[Tensor]) -> Tensor:
    """The loss, a scalar, differentiable once."""
    loss: Tensor = _Replay.apply(step.run, inputs, *step.parameters)  # type: ignore[no-untyped-call]
    return loss


def _kept(run: Run) -> Run:
    """Copies of what a CUDA graph writes over at its next replay."""

    def replay(*inputs: Tensor) -> Sequence[Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return [output.clone() for output in run(*inputs)]

    return replay


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, inputs: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        with torch.no_grad():
            loss, *ctx.gradients = run(*inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return None, None, *torch._foreach_mul(ctx.gradients, slope)
