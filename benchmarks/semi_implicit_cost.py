"""Time and memory of one SIVI step for J = 1, 10, 100, 1000, beside the same step by hand.

Two programs: a VAE of 784-200-200-50 with one layer of 50 noises of 200 units on a batch of
128; and weights of a regression, 22 of them from 10 noises through 100-100 units, with 20
particles that share the J draws. By hand is plain PyTorch on the same modules. Ours is taken as
it is and, in runs of their own, compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, pi
from statistics import median

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, softplus

from benchmarks.memory import saving_on
from benchmarks.peak_memory import peak_memory
from benchmarks.step_time import Timer, interleaved
from pyro_lvm.guides import SemiImplicitGuide, SemiImplicitWeights
from pyro_lvm.models import VAE, BayesianLogisticRegression
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import SIVI
from pyro_lvm.training import CompiledLoss

__all__ = ["CASES", "RUNS", "Case", "run"]

BATCH, PARTICLES = 128, 20
ROUNDS = {1: 60, 10: 60, 100: 20, 1000: 10}  # by J
SIZE, ROWS = 22, 500


@dataclass(frozen=True)
class Case:
    """One pair of programs, and the loss of both sides for J draws."""

    model: nn.Module
    guide: nn.Module
    data: tuple[Tensor, ...]
    objective: Callable[[int], Objective]
    by_hand: Callable[[int], Tensor]
    parts: Mapping[str, nn.Module]  # to book memory on

    def steps(
        self, num_mixing: int, compiled: bool = False
    ) -> dict[tuple[str, str, str], Callable[[], object]]:
        """A step of each side, with gradients."""
        ours = self.objective(num_mixing)
        loss = CompiledLoss(ours, self.model, self.guide) if compiled else None

        def hand() -> float:
            loss = self.by_hand(num_mixing)
            loss.backward()
            return loss.item()

        def step() -> float:
            if loss is None:
                return ours.loss_and_grads(self.model, self.guide, *self.data)
            value: Tensor = loss(*self.data)
            value.backward()
            return value.item()

        return {("SIVI", "reparam", "ours"): step, ("SIVI", "reparam", "by hand"): hand}


def _rows(guide: nn.Module, entry: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale given ``noise``, and what the context adds to the first layer."""
    (layer,) = guide.mixing.layers
    weight = layer.entry.weight[:, -noise.shape[-1] :]
    psi = layer.rest((entry + linear(noise, weight) + layer.entry.bias).tanh())
    loc, raw = guide.conditionals.sites[0].head(psi).chunk(2, -1)
    return loc, softplus(raw) + 1e-6


def _log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return (-0.5 * ((z - loc) / scale).square() - scale.log() - 0.5 * log(2 * pi)).sum(-1)


def vae() -> Case:
    x = torch.rand(BATCH, 784).round()
    model = VAE(784, 50, (200, 200))
    guide = SemiImplicitGuide(
        in_features=784,
        latent_features=50,
        hidden=(200, 200),
        context_features=200,
        noise_features=50,
        noise_hidden=(200,),
    )

    def by_hand(num_mixing: int) -> Tensor:
        context = guide.encoding(x)
        entry = linear(context, guide.mixing.layers[0].entry.weight[:, :200])
        loc, scale = _rows(guide, entry, torch.randn(num_mixing + 1, BATCH, 50))
        z = loc[0] + scale[0] * torch.randn(BATCH, 50)
        log_q = _log_normal(z, loc, scale).logsumexp(0) - log(num_mixing + 1)
        pictures = binary_cross_entropy_with_logits(model.decoder(z), x, reduction="none")
        log_p = -pictures.sum(-1) - 0.5 * (z.square() + log(2 * pi)).sum(-1)
        return (log_q - log_p).sum()

    parts = {"encoder": guide.encoding, "decoder": model.decoder}
    return Case(model, guide, (x,), lambda j: SIVI(num_mixing=j), by_hand, parts)


def regression() -> Case:
    x = torch.randn(ROWS, SIZE)
    y = (x[:, 0] > 0).float()
    model = BayesianLogisticRegression(SIZE)
    guide = SemiImplicitWeights({"weights": SIZE}, noise_features=10, noise_hidden=(100, 100))

    def by_hand(num_mixing: int) -> Tensor:
        noise = torch.randn(PARTICLES + num_mixing, 10)
        loc, scale = _rows(guide, torch.zeros(()), noise)
        own = loc[:PARTICLES], scale[:PARTICLES]
        z = own[0] + own[1] * torch.randn(PARTICLES, SIZE)
        others = _log_normal(z[:, None], loc[PARTICLES:], scale[PARTICLES:])
        rows = torch.cat([_log_normal(z, *own)[:, None], others], 1)
        log_q = rows.logsumexp(1) - log(num_mixing + 1)
        logits = z @ x.T
        outcomes = binary_cross_entropy_with_logits(logits, y.expand_as(logits), reduction="none")
        log_p = -outcomes.sum(-1) - 0.5 * (z.square() + log(2 * pi)).sum(-1)
        return log(PARTICLES) - (log_p - log_q).logsumexp(0)

    def objective(num_mixing: int) -> SIVI:
        return SIVI(PARTICLES, num_mixing=num_mixing, share_mixing=True)

    return Case(model, guide, (x, y), objective, by_hand, {"guide": guide.mixing})


CASES = {"VAE": vae, "regression": regression}
RUNS = {
    f"{case}, J = {count}{', compiled' if compiled else ''}": (case, count, compiled)
    for compiled in (False, True)
    for case in CASES
    for count in ROUNDS
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Of both sides: ms of CPU time, their ratio by round, MiB kept for backward and at most."""
    case_name, num_mixing, compiled = RUNS[name]
    pyro.set_rng_seed(seed)
    case = CASES[case_name]()
    sides = case.steps(num_mixing, compiled)
    modules = nn.ModuleList([case.model, case.guide])
    rounds = steps or ROUNDS[num_mixing]
    times = interleaved(sides, modules, Timer(torch.device("cpu"), "cpu"), rounds)
    ours, hand = times.values()
    ratios = sorted(a / b for a, b in zip(ours, hand, strict=True))
    kept, decoder = zip(*(_kept(case, step) for step in sides.values()), strict=True)
    peaks = [peak_memory(step) / 2**20 for step in sides.values()]
    return {
        "ours ms": median(ours),
        "by hand ms": median(hand),
        "ratio": median(ratios),
        "least ratio": ratios[0],
        "largest ratio": ratios[-1],
        "ours MiB": kept[0],
        "by hand MiB": kept[1],
        "ours, decoder MiB": decoder[0],
        "ours peak MiB": peaks[0],
        "by hand peak MiB": peaks[1],
    }


def _kept(case: Case, step: Callable[[], object]) -> tuple[float, float]:
    """MiB that autograd saves in all, and on the decoder."""
    with saving_on(case.parts, list(case.data)) as saved:
        step()
    sizes = {label: sum(storages.values()) / 2**20 for label, storages in saved.items()}
    return sum(sizes.values()), sizes.get("decoder", 0.0)
