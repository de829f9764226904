"""What takes the steps of the race to a bound: a loss and Adam, on parameters of two programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor, nn

from benchmarks import peers_numpyro
from benchmarks.programs import Guide, Model
from pyro_lvm.objectives import IWAE
from pyro_lvm.training import CompiledLoss, CompiledStep

__all__ = ["LEARNING_RATE", "METHODS", "Trainer"]

NUM_PARTICLES = 5
LEARNING_RATE = 1e-3


class Trainer(Protocol):
    """Changes the parameters of a model and a guide."""

    def step(self, x: Tensor) -> None:
        """One update by a batch."""

    def sync(self) -> None:
        """Leave the parameters in the programs, if they are elsewhere."""


@dataclass(frozen=True)
class _Torch:
    optimizer: torch.optim.Optimizer
    backward: Callable[[Tensor], Any]

    def step(self, x: Tensor) -> None:
        self.optimizer.zero_grad()
        self.backward(x)
        self.optimizer.step()

    def sync(self) -> None:
        pass


@dataclass(frozen=True)
class _Whole:
    take: CompiledStep

    def step(self, x: Tensor) -> None:
        self.take(x)

    def sync(self) -> None:
        pass


def _adam(model: Model, guide: Guide) -> torch.optim.Optimizer:
    return torch.optim.Adam(nn.ModuleList([model, guide]).parameters(), lr=LEARNING_RATE)


def _ours(model: Model, guide: Guide, gradient: str, compiled: bool) -> Trainer:
    objective: Any = IWAE(NUM_PARTICLES, gradient)
    if compiled:
        return _Whole(CompiledStep(CompiledLoss(objective, model, guide), _adam(model, guide)))
    loss = objective(model, guide)
    return _Torch(_adam(model, guide), lambda x: loss(x).backward())


def _pyro(model: Model, guide: Guide, elbo: Callable[..., Any]) -> Trainer:
    made = elbo(num_particles=NUM_PARTICLES, vectorize_particles=True, max_plate_nesting=1)
    return _Torch(_adam(model, guide), partial(made.loss_and_grads, model, guide))


def _numpyro(model: Model, guide: Guide) -> Trainer:
    networks = nn.ModuleDict({"decoder": model.decoder, "encoder": guide.encoder})
    return peers_numpyro.Trained("vae", networks, "IWAE", NUM_PARTICLES, LEARNING_RATE)


METHODS: dict[str, Callable[[Model, Guide], Trainer]] = {
    "ours, compiled": partial(_ours, gradient="reparam", compiled=True),
    "ours, compiled, dreg": partial(_ours, gradient="dreg", compiled=True),
    "ours": partial(_ours, gradient="reparam", compiled=False),
    "Pyro, Renyi": partial(_pyro, elbo=partial(RenyiELBO, alpha=0)),
    "Pyro": partial(_pyro, elbo=Trace_ELBO),
}
if peers_numpyro.is_installed():
    METHODS[peers_numpyro.NAME] = _numpyro
