"""Sizes that grow, and the steps that are taken at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import pyro
import torch
from pyro.infer import RenyiELBO
from torch import Tensor

from benchmarks.kept import Run
from benchmarks.peak_memory import peak_memory
from benchmarks.peers_rounds import first_calls, timed_in_turns
from benchmarks.peers_steps import Step
from benchmarks.programs import NETWORKS, Guide, Model, data
from pyro_lvm.guides import HierarchicalNormal, SemiImplicitGuide
from pyro_lvm.models import VAE, HierarchicalVAE
from pyro_lvm.objectives import IWAE, SIVI
from pyro_lvm.training import CompiledLoss

__all__ = ["AXES", "Axis"]

SIZES = NETWORKS["digits"]
PARTICLES = 5
AT_A_TIME = {"particles": 50, "mixing": 100}
LARGEST_WHOLE = 1000
ROUNDS = 5


@dataclass(frozen=True)
class Axis:
    """One size that grows.

    Attributes:
        symbol: of the size.
        sizes: its values.
        steps: from one of them to the contenders by name.
    """

    symbol: str
    sizes: tuple[int, ...]
    steps: Callable[[int], dict[str, Step]]

    @property
    def RUNS(self) -> list[str]:
        return [f"{self.symbol} = {size}" for size in self.sizes]

    def run(self, name: str, seed: int, rounds: int | None = None) -> Run:
        """Milliseconds a step and MiB at the peak, by contender."""
        pyro.set_rng_seed(seed)
        torch.compiler.reset()
        steps = self.steps(int(name.split()[-1]))
        first_calls(steps)
        times = timed_in_turns(steps, rounds or ROUNDS)
        found = {f"{column}, ms": median(each) for column, each in times.items()}
        return found | {f"{c}, MiB": peak_memory(step) / 2**20 for c, step in steps.items()}


def _of_batch(batch: int) -> dict[str, Step]:
    model, guide = Model(SIZES), Guide(SIZES)
    x = data(replace(SIZES, batch_size=batch), torch.device("cpu"))
    compiled = {"ours, compiled": _ours(CompiledLoss(IWAE(PARTICLES), model, guide), x)}
    return _beside_pyro(model, guide, x, PARTICLES) | compiled


def _of_particles(num_particles: int) -> dict[str, Step]:
    model, guide, x = Model(SIZES), Guide(SIZES), data(SIZES, torch.device("cpu"))
    steps: dict[str, Step] = {}
    if num_particles <= LARGEST_WHOLE:
        compiled = CompiledLoss(IWAE(num_particles), model, guide)
        steps |= _beside_pyro(model, guide, x, num_particles)
        steps["ours, compiled"] = _ours(compiled, x)
    in_chunks: Any = IWAE(num_particles, chunk_particles=AT_A_TIME["particles"])
    return steps | {"ours, in chunks": _ours(in_chunks(model, guide), x)}


def _of_mixing(num_mixing: int) -> dict[str, Step]:
    hidden, latents = SIZES.hidden, SIZES.latent_features
    model = VAE(SIZES.in_features, latents, hidden)
    guide = SemiImplicitGuide(
        in_features=SIZES.in_features,
        latent_features=latents,
        hidden=hidden,
        noise_features=latents,
        noise_hidden=hidden[:1],
    )
    x = data(SIZES, torch.device("cpu"))
    whole: Any = SIVI(num_mixing=num_mixing)
    in_chunks: Any = SIVI(num_mixing=num_mixing, chunk_mixing=AT_A_TIME["mixing"])
    steps = {"ours": whole} if num_mixing <= LARGEST_WHOLE else {}
    steps |= {"ours, in chunks": in_chunks}
    return {name: _ours(objective(model, guide), x) for name, objective in steps.items()}


def _of_latents(latents: int) -> dict[str, Step]:
    sizes = replace(SIZES, latent_features=latents)
    model, guide, x = Model(sizes), Guide(sizes), data(sizes, torch.device("cpu"))
    return _beside_pyro(model, guide, x, PARTICLES)


def _of_layers(layers: int) -> dict[str, Step]:
    latents = (8,) * layers
    model = HierarchicalVAE(SIZES.in_features, latents, SIZES.hidden[:1])
    guide = HierarchicalNormal(
        in_features=SIZES.in_features, latent_features=latents, hidden=SIZES.hidden[:1]
    )
    return _beside_pyro(model, guide, data(SIZES, torch.device("cpu")), PARTICLES)


def _beside_pyro(model: Any, guide: Any, x: Tensor, num_particles: int) -> dict[str, Step]:
    elbo = RenyiELBO(0, num_particles, max_plate_nesting=1, vectorize_particles=True)
    objective: Any = IWAE(num_particles)
    ours = objective(model, guide)

    def pyros() -> float:
        ours.zero_grad(set_to_none=True)
        return float(elbo.loss_and_grads(model, guide, x))

    return {"ours": _ours(ours, x), "Pyro": pyros}


def _ours(loss: Any, x: Tensor) -> Step:
    def step() -> float:
        loss.zero_grad(set_to_none=True)
        value = loss(x)
        value.backward()
        return float(value.detach())

    return step


AXES = {
    "batch": Axis("N", (10, 30, 100, 300, 1000, 3000), _of_batch),
    "particles": Axis("K", (1, 5, 20, 100, 500, 2000), _of_particles),
    "mixing": Axis("J", (1, 10, 100, 1000, 5000), _of_mixing),
    "latents": Axis("L", (2, 8, 32, 128, 512), _of_latents),
    "layers": Axis("layers", (1, 2, 4, 8, 16), _of_layers),
}
