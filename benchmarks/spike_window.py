"""Guides of spike trains where the posterior is exact: nine frames, 512 trains, enumerated.

Exponential decay by .96 a frame, one spike 2.5 times the noise, a spike in a frame with
probability .1: a spike is seen, and often not in which frame, so neighbours in the posterior have
a covariance. Every guide has the same encoder, sees new simulated traces at each step, and is
judged on the same ones. r is the correlation of posterior means with the true spikes. Coverage is
that of the 90 % interval of the count of spikes in a window, randomised at its ends, so that the
exact posterior covers 90 %. Relaxed draws count as spikes above 1/2; the KL of an implicit guide is
that of how often it draws each train. Implicit guides are run where ``--only`` names them.

    python -m benchmarks.spike_window --steps 1500 --seeds 3
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from benchmarks.command_line import parser_of
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.models import LinearCalcium
from pyro_lvm.models.spike_enumeration import EnumeratedSpikes, enumerate_spikes
from pyro_lvm.nn import TraceDiscriminator, TraceEncoder
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE, IWAVB, WakeSleep

__all__ = [
    "RECIPES",
    "Judgement",
    "guide_of",
    "judge",
    "main",
    "probabilities",
    "run",
    "train",
    "window",
]

RESULTS = Path(__file__).parent / "results"
FRAMES, RATE, DECAY, AMPLITUDE, NOISE, PROBABILITY = 9, 60.0, 0.96, 0.25, 0.1, 0.1
NUM_TEST = 1000
NUM_DRAWS = 4000  # of an implicit guide
BATCH = 64


class Recipe(NamedTuple):
    """A posterior of the guide, and the objectives it is trained by, one after the other."""

    posterior: str
    phases: tuple[str, ...]


RELAXED = ("relaxed", "implicit")
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "score": lambda: ELBO(8, "score"),
    "reparam": lambda: ELBO(8),
    "vimco": lambda: IWAE(8, "vimco"),
    "sleep": lambda: WakeSleep(arguments=lambda data: data["x"]),
    "avb": lambda: AVB(_discriminator(), 5, discriminator_lr=1e-3),
    "iwavb": lambda: IWAVB(_discriminator(), 5, discriminator_lr=1e-3),
}
RATES = {"sleep": 1e-2, "avb": 1e-3, "iwavb": 1e-3}
RECIPES = {
    "factorised, ELBO by score": Recipe("factorised", ("score",)),
    "factorised, ELBO, straight-through": Recipe("straight_through", ("reparam",)),
    "factorised, relaxed ELBO": Recipe("relaxed", ("reparam",)),
    "factorised, VIMCO-8": Recipe("factorised", ("vimco",)),
    "factorised, sleep": Recipe("factorised", ("sleep",)),
    "autoregressive, VIMCO-8": Recipe("autoregressive", ("vimco",)),
    "autoregressive, sleep": Recipe("autoregressive", ("sleep",)),
    "autoregressive, sleep, VIMCO-8": Recipe("autoregressive", ("sleep", "vimco")),
    "implicit, AVB": Recipe("implicit", ("avb",)),
    "implicit, IWAVB-5": Recipe("implicit", ("iwavb",)),
}
WITH_DENSITY = [name for name, recipe in RECIPES.items() if recipe.posterior != "implicit"]


@dataclass(frozen=True)
class Judgement:
    """One trained guide on test windows; nats per window.

    Attributes:
        kl: KL(q || p), mean.
        r: correlation of posterior means with true spikes, over all frames.
        covariance: of neighbours, mean.
        coverage: of the 90 % interval of the count.
        gaps: log p - L_K, mean, for K = 1, 5 and 50.
        seconds: of training, processor time.
    """

    kl: float
    r: float
    covariance: float
    coverage: float
    gaps: tuple[float, ...] = ()
    seconds: float = 0.0


def window(**options: Any) -> LinearCalcium:
    """The model, every parameter at its true value."""
    model = LinearCalcium(RATE, num_frames=FRAMES, drift=False, **options)
    model.decay = torch.tensor([-1 / (RATE * log(DECAY))])
    model.amplitude = torch.tensor([AMPLITUDE])
    model.noise_scale = torch.tensor([NOISE])
    model.firing_rate = torch.tensor([-RATE * log(1 - PROBABILITY)])
    return model.requires_grad_(False)


def simulate(model: LinearCalcium, size: int) -> tuple[Tensor, Tensor]:
    """Traces and spikes, ``(size, 9)`` each."""
    with torch.no_grad():
        trace = pyro.poutine.trace(model).get_trace(size=size)
    return trace.nodes["x"]["value"], trace.nodes["spikes"]["value"]


def guide_of(posterior: str) -> SpikeGuide:
    return SpikeGuide(
        _encoder(),
        encoder_features=32,
        posterior=posterior,
        rate=RATE,
        spike_rate=RATE * PROBABILITY,
        state_features=32,
    )


def train(guide: SpikeGuide, recipe: Recipe, steps: int) -> None:
    """Steps of each objective on new traces, with a rate that falls to 0."""
    relaxed = recipe.posterior in RELAXED
    model = window(spikes="relaxed" if relaxed else "bernoulli")
    for phase in recipe.phases:
        objective = OBJECTIVES[phase]()
        optimizer = torch.optim.Adam(guide.parameters(), RATES.get(phase, 3e-3))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            x, _ = simulate(model, BATCH)
            optimizer.zero_grad()
            (objective.differentiable_loss(model, guide, x) / BATCH).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def probabilities(guide: SpikeGuide, x: Tensor, trains: Tensor) -> Tensor:
    """Of every train given each trace, ``(B, 512)``."""
    return torch.cat([_probabilities(guide, rows, trains) for rows in x.split(50)])


def _probabilities(guide: SpikeGuide, x: Tensor, trains: Tensor) -> Tensor:
    posterior = guide.posterior(x)
    if not is_implicit(posterior):
        return posterior.log_prob(trains.unsqueeze(1)).mT.exp()
    places = 2 ** torch.arange(FRAMES).flip(0)
    rows = ((posterior.sample((NUM_DRAWS,)) > 0.5).long() @ places).mT  # (B, draws)
    counts = torch.zeros(len(x), len(trains)).scatter_add_(1, rows, torch.ones(rows.shape))
    return counts / NUM_DRAWS


def judge(q: Tensor, exact: EnumeratedSpikes, spikes: Tensor) -> Judgement:
    """Probabilities ``(B, 512)`` against the exact posterior and the true spikes ``(B, 9)``."""
    trains = exact.trains
    kl = (torch.xlogy(q, q) - q * exact.log_posterior).sum(-1)
    means = q @ trains
    both = q @ (trains[:, 1:] * trains[:, :-1])
    pair = torch.stack([means.flatten(), spikes.flatten()])
    return Judgement(
        kl=kl.mean().item(),
        r=torch.corrcoef(pair)[0, 1].item(),
        covariance=(both - means[:, 1:] * means[:, :-1]).mean().item(),
        coverage=_coverage(q, trains.sum(-1).long(), spikes.sum(-1).long()),
    )


def _coverage(q: Tensor, counts: Tensor, true: Tensor, level: float = 0.9) -> float:
    """How often the true count is in the interval, which takes its ends in part."""
    p = torch.zeros(len(q), FRAMES + 1).index_add_(1, counts, q)
    upper = p.cumsum(-1).gather(1, true[:, None])
    place = upper - torch.rand(len(q), 1) * p.gather(1, true[:, None])
    inside = (place - 0.5).abs() < level / 2
    return inside.float().mean().item()


def run(name: str, seed: int, steps: int) -> Judgement:
    """Train one guide and judge it."""
    pyro.set_rng_seed(seed)
    recipe = RECIPES[name]
    guide, model = guide_of(recipe.posterior), window()
    start = process_time()
    train(guide, recipe, steps)
    seconds = process_time() - start
    if recipe.posterior == "relaxed":  # the same parameters are those of spikes
        discrete = guide_of("factorised")
        discrete.load_state_dict(guide.state_dict())
        guide = discrete
    pyro.set_rng_seed(1000 + seed)
    x, spikes = simulate(model, NUM_TEST)
    exact = enumerate_spikes(model, x)
    judgement = judge(probabilities(guide, x, exact.trains), exact, spikes)
    if recipe.posterior == "implicit":
        return replace(judgement, seconds=seconds)
    gaps = [(exact.log_evidence - IWAE(k).bound(model, guide, x)).mean().item() for k in (1, 5, 50)]
    return replace(judgement, gaps=tuple(gaps), seconds=seconds)


def reference(seed: int) -> Judgement:
    """The exact posterior itself, on the same traces."""
    pyro.set_rng_seed(1000 + seed)
    x, spikes = simulate(window(), NUM_TEST)
    exact = enumerate_spikes(window(), x)
    return replace(judge(exact.log_posterior.exp(), exact, spikes), gaps=(0.0, 0.0, 0.0))


def table(rows: dict[str, list[Judgement]]) -> str:
    """One line a recipe: the mean over seeds, and the range of the KL."""
    head = (
        "| guide, training | KL(q \\|\\| p) | r | covariance of neighbours | coverage of 90 % "
        "| log p - L_K, K = 1 / 5 / 50 | seconds |"
    )
    lines = [_line(name, judgements) for name, judgements in rows.items()]
    return "\n".join([head, "|" + " --- |" * 7, *lines])


def _line(name: str, seeds: list[Judgement]) -> str:
    kl = [one.kl for one in seeds]
    gaps = " / ".join(f"{mean(gap):.3f}" for gap in zip(*(one.gaps for one in seeds), strict=True))
    return (
        f"| {name} | {mean(kl):.3f} ({min(kl):.3f} to {max(kl):.3f}) "
        f"| {mean(one.r for one in seeds):.3f} | {mean(one.covariance for one in seeds):.4f} "
        f"| {mean(one.coverage for one in seeds):.3f} | {gaps or 'no density'} "
        f"| {mean(one.seconds for one in seeds):.0f} |"
    )


def _discriminator() -> TraceDiscriminator:
    return TraceDiscriminator(_encoder(), rate=RATE, width=9)


def _encoder() -> TraceEncoder:
    return TraceEncoder(channels=(32, 32), widths=(9, 9), noise=NOISE)


def main() -> None:
    """Train on all seeds, print the table, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=RECIPES, default=WITH_DENSITY)
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    seeds = range(options.seeds)
    rows = {"exact posterior": [reference(seed) for seed in seeds]}
    for name in options.only:
        rows[name] = [run(name, seed, options.steps) for seed in seeds]
        print(_line(name, rows[name]), flush=True)
    command = shlex.join(["python", "-m", "benchmarks.spike_window", *sys.argv[1:]])
    text = (
        f"# Spike trains of nine frames: guides against enumeration\n\n{table(rows)}\n\n`{command}`"
    )
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "spike_window.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
