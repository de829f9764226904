"""Steps of one case: gradients dropped, loss, backward; no optimiser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.infer
import torch
from torch import Tensor

from benchmarks.peers_case import Case
from pyro_lvm import objectives
from pyro_lvm.training import CompiledLoss

__all__ = ["OURS", "Step", "steps"]

OURS = ("ours", "ours, compiled")
Step = Callable[[], float]
"""Computes a loss and its gradient, and returns the loss."""


def steps(case: Case, num_particles: int, backend: str = "inductor") -> dict[str, Step]:
    """The contenders by column.

    Args:
        case: the programs and their data.
        num_particles: K.
        backend: of the compiled steps; "graph" for tests, without a compiler.
    """
    objective = getattr(objectives, case.bound)(num_particles)
    recorded = CompiledLoss(objective, case.model, case.guide, backend=backend)
    losses: dict[str, Callable[[], Tensor]] = {
        "ours": partial(objective(case.model, case.guide), case.x),
        "ours, compiled": partial(recorded, case.x),
    }
    if case.by_hand is not None:
        by_hand = partial(case.by_hand, num_particles)
        losses["by hand"] = by_hand
        by_torch = "inductor" if backend == "inductor" else "eager"  # the graph, not compiled
        losses["by hand, compiled"] = torch.compile(by_hand, dynamic=False, backend=by_torch)
    made = {column: _backward(case, loss) for column, loss in losses.items()}
    made |= {name: _pyro(case, elbo) for name, elbo in _of_pyro(case, num_particles).items()}
    return made | {name: make(num_particles) for name, make in case.peers.items()}


def _backward(case: Case, loss: Callable[[], Tensor]) -> Step:
    def step() -> float:
        case.modules.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return float(value.detach())

    return step


def _pyro(case: Case, elbo: Any) -> Step:
    def step() -> float:
        case.modules.zero_grad(set_to_none=True)
        return float(elbo.loss_and_grads(case.model, case.guide, case.x))

    return step


def _of_pyro(case: Case, num_particles: int) -> dict[str, Any]:
    """Pyro's objectives of the case; its jitted one has no importance-weighted kin."""
    options: dict[str, Any] = {"max_plate_nesting": case.nesting, "ignore_jit_warnings": True}
    if case.enumerates:
        names = {"Pyro": "TraceEnum_ELBO", "Pyro, jitted": "JitTraceEnum_ELBO"}
    else:
        names = {"Pyro": "Trace_ELBO", "Pyro, jitted": "JitTrace_ELBO"}
        options |= {"num_particles": num_particles, "vectorize_particles": True}
    made = {column: getattr(pyro.infer, name)(**options) for column, name in names.items()}
    if case.bound == "IWAE" and num_particles > 1:
        del options["ignore_jit_warnings"]
        made["Pyro, Renyi"] = pyro.infer.RenyiELBO(alpha=0, **options)
    return made
