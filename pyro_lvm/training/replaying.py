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

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.training.recording import Recorded

__all__ = ["compiled", "options_for", "replayed", "separated"]

Run = Callable[..., Sequence[Tensor]]

_CUDA_GRAPHS = "triton.cudagraphs"


def compiled(step: Recorded, inputs: Sequence[Tensor]) -> Recorded:
    """The step compiled for such inputs; on CUDA as CUDA graphs.

    Inductor takes the graph as it is: ``torch.compile`` would look at every tensor again before
    each replay, a tenth of a millisecond, where the caller knows that the graph fits. Without the
    context, which ``torch.compile`` would make, torch looks for no such graph on disk.
    """
    graph: Any = step.run
    options = options_for([*inputs, *step.parameters])
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))
    with torch.no_grad(), tracing(context):
        run: Run = torch._inductor.compile(graph, [*inputs], options=options)
    return step._replace(run=_copied(_marked(run)) if _CUDA_GRAPHS in options else run)


def options_for(tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Of inductor: on CUDA a step launched as a whole, on the CPU kernels called without Python."""
    kinds = {tensor.device.type for tensor in tensors}
    if "cuda" in kinds:
        return {_CUDA_GRAPHS: True}
    return {"cpp_wrapper": True} if kinds == {"cpu"} else {}


def separated(step: Recorded, inputs: Sequence[Tensor]) -> Recorded:
    """The step, with copies of its results where two, or two runs, share memory.

    Gradients are changed in place: one may be another, or a tensor of the program or the batch.
    """
    with torch.no_grad():
        results = [*step.run(*inputs), *step.run(*inputs)]
    places = {result.untyped_storage().data_ptr() for result in results}
    return step if len(places) == len(results) else step._replace(run=_copied(step.run))


def replayed(step: Recorded, inputs: Sequence[Tensor]) -> Tensor:
    """The loss, a scalar, differentiable once."""
    loss: Tensor = _Replay.apply(step.run, inputs, *step.parameters)  # type: ignore[no-untyped-call]
    return loss


def _marked(run: Run) -> Run:
    """Each a step of its own, whose CUDA graph may write over what the last one gave."""

    def replay(*inputs: Tensor) -> Sequence[Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return run(*inputs)

    return replay


def _copied(run: Run) -> Run:
    return lambda *inputs: [output.clone() for output in run(*inputs)]


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, inputs: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        with torch.no_grad():
            loss, *ctx.gradients = run(*inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        gradients, ctx.gradients = ctx.gradients, None  # held nowhere else, they need no copy
        if gradients is None:
            expected, found = "one backward pass through a compiled loss", "a second one"
            hint = "Call the loss again: a replayed step keeps no values."
            raise ProgramError(explain("backward", expected, found, hint))
        if not (slope.is_cpu and slope.item() == 1.0):  # a look costs nothing on the CPU
            torch._foreach_mul_(gradients, slope)
        return None, None, *gradients
