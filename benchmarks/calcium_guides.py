"""Guides of the library on the traces of the benchmark, trained in one of two ways.

- "simulated": on recordings simulated from known ranges, new ones in each step; the guide
  never sees the cells that it is judged on.
- "unsupervised": on the cells that are not held out, without their spikes, while the model
  learns each cell's parameters. Held-out cells take one pass through the guide, no training.
  All objectives have the same number of steps, each on as much of the recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from benchmarks.calcium_cells import RATE, Cells
from benchmarks.calcium_scores import Found
from pyro_lvm import fit
from pyro_lvm.data import Traces, noise_level, snippets
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.models.calcium_presets import PRESETS
from pyro_lvm.models.calcium_simulation import draw_cells, record, scale_of_level
from pyro_lvm.nn import TraceDiscriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE, IWAVB, ReweightedWakeSleep

__all__ = ["FOR_REAL_CELLS", "METHODS"]

LEARNING_RATE, NUM_SAMPLES, CELLS_AT_A_TIME = 2e-3, 100, 8
Method = Callable[[Cells, int, int | None], Found]


class Budget(NamedTuple):
    """How much a guide is trained: steps, each on so many stretches of so many frames."""

    steps: int
    batch: int
    frames: int


SIMULATED, UNSUPERVISED = Budget(400, 20, 300), Budget(400, 10, 150)


def simulated(
    posterior: str,
    cells: Cells,
    seed: int,
    steps: int | None,
    *,
    binding: bool = False,
    matched: bool = False,
) -> Found:
    """Maximum likelihood of simulated spikes given their traces: the sleep phase alone.

    Args:
        posterior: of the guide.
        cells: to judge it by.
        seed: of everything.
        steps: in place of those of ``SIMULATED``.
        binding: the indicator binds cooperatively.
        matched: noise levels are those of the cells that are not held out.
    """
    preset = _preset(cells, binding)
    levels = noise_level(_seen(cells)) if matched else None
    pyro.set_rng_seed(seed)
    guide = SpikeGuide(rate=RATE, posterior=posterior)
    steps = steps or SIMULATED.steps
    optimizer = torch.optim.Adam(guide.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    started = perf_counter()
    for _ in range(steps):
        model = draw_cells(preset, SIMULATED.batch, RATE)
        if levels is not None:
            level = levels[torch.randint(len(levels), (SIMULATED.batch,))]
            model.noise_scale = scale_of_level(level, RATE)
        traces, spikes, _ = record(model, SIMULATED.frames, cells.bursts)
        optimizer.zero_grad()
        (-guide.posterior(traces).log_prob(spikes).mean()).backward()
        torch.nn.utils.clip_grad_norm_(guide.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return _found(guide, posterior, cells, perf_counter() - started)


def unsupervised(
    posterior: str,
    spikes: str,
    binding: bool,
    objective: Callable[[], Objective],
    cells: Cells,
    seed: int,
    steps: int | None,
    *,
    usual_height: bool = False,
) -> Found:
    """Model and guide by ``objective`` on the traces of the cells that are not held out.

    The model has the slow parts for all cells: a stretch begins amid transients of before. It
    starts at the height of each cell's transients, or at the usual one of the indicator.
    """
    pyro.set_rng_seed(seed)
    seen = _seen(cells)
    preset = PRESETS[_preset(cells, binding)]
    options = {**preset.options, "drift": True}
    model = preset.model(RATE, num_cells=len(seen), spikes=spikes, **options)
    height = model.amplitude.detach().clone()
    model.start_at(seen.x)
    if usual_height:
        model.amplitude = height
    guide = SpikeGuide(rate=RATE, posterior=posterior)
    windows = snippets(seen, UNSUPERVISED.frames)
    started = perf_counter()
    fit(
        model,
        guide,
        (windows.x, windows.cell),
        objective(),
        max_steps=steps or UNSUPERVISED.steps,
        batch_size=UNSUPERVISED.batch,
        lr=LEARNING_RATE,
        lr_scheduler="cosine",
        max_grad_norm=1.0,
        seed=seed,
        allow_nan=True,
        diagnostic_particles=0,
        evaluate_every=10**9,  # nothing is held out of training
    )
    return _found(guide, posterior, cells, perf_counter() - started)


def _seen(cells: Cells) -> Traces:
    """The cells that are not held out."""
    return cells.traces.select([i for i in range(len(cells.traces)) if i not in cells.test])


def _preset(cells: Cells, binding: bool) -> str:
    """The simulation like these cells, with an indicator that binds in place of a linear one."""
    return f"{cells.preset}_binding" if binding else cells.preset


@torch.no_grad()
def _found(guide: SpikeGuide, posterior: str, cells: Cells, training: float) -> Found:
    """Draws for every cell; relaxed ones count as spikes above 1/2."""
    started = perf_counter()
    size = torch.Size([NUM_SAMPLES])
    parts = cells.traces.x.split(CELLS_AT_A_TIME)
    draws = torch.cat([guide.posterior(x).sample(size).round() for x in parts], 1)
    seconds = perf_counter() - started
    log_q = _log_q(guide, cells) if posterior in ("factorised", "autoregressive") else None
    return Found(draws.mean(0), draws, log_q, seconds, training)


def _log_q(guide: SpikeGuide, cells: Cells) -> Tensor:  # (cells,)
    """Log-density of the true train of each cell, nats a second; two spikes a frame are one."""
    values = []
    for trace, counts in zip(cells.traces.x, cells.truth, strict=True):
        known = ~trace.isnan()
        train = counts[known].clamp(max=1)
        values.append(guide.posterior(trace[known][None]).log_prob(train[None]) / len(train))
    return torch.cat(values) * RATE


def _traces(x: Tensor, cell: Tensor | None = None) -> Tensor:
    """The discriminator's context."""
    return x


def _wake_sleep(insomnia: float = 0.5) -> Objective:
    return ReweightedWakeSleep(10, insomnia=insomnia, arguments=lambda dreams: dreams["x"])


def _adversarial(make: type[AVB] | type[IWAVB], num_particles: int) -> Objective:
    return make(TraceDiscriminator(rate=RATE), num_particles, context=_traces)


def _trained(posterior: str, spikes: str, make: Any, *arguments: Any, **how: Any) -> Method:
    return partial(unsupervised, posterior, spikes, False, partial(make, *arguments), **how)


METHODS: Mapping[str, Method] = {
    "simulated, factorised": partial(simulated, "factorised"),
    "simulated, autoregressive": partial(simulated, "autoregressive"),
    "wake-sleep, factorised": _trained("factorised", "bernoulli", _wake_sleep),
    "dreams, factorised": _trained("factorised", "bernoulli", _wake_sleep, 0.0),
    "wake-sleep, autoregressive": _trained("autoregressive", "bernoulli", _wake_sleep),
    "ELBO, factorised": _trained("factorised", "bernoulli", ELBO, 10, "score"),
    "VIMCO, factorised": _trained("factorised", "bernoulli", IWAE, 10, "vimco"),
    "VIMCO from the usual height, factorised": _trained(
        "factorised", "bernoulli", IWAE, 10, "vimco", usual_height=True
    ),
    "VIMCO, autoregressive": _trained("autoregressive", "bernoulli", IWAE, 10, "vimco"),
    "AVB": _trained("implicit", "relaxed", _adversarial, AVB, 1),
    "IWAVB, K = 5": _trained("implicit", "relaxed", _adversarial, IWAVB, 5),
    "IWAVB, K = 50": _trained("implicit", "relaxed", _adversarial, IWAVB, 50),
}
"""K = 10 draws where no other number is given; ``AVB`` takes one, as IWAVB does for K = 1."""

FOR_REAL_CELLS: Mapping[str, Method] = {
    "simulated with binding, factorised": partial(simulated, "factorised", binding=True),
    "simulated with matched noise, factorised": partial(simulated, "factorised", matched=True),
    "simulated with both, factorised": partial(simulated, "factorised", binding=True, matched=True),
    "simulated with both, autoregressive": partial(
        simulated, "autoregressive", binding=True, matched=True
    ),
    "dreams with binding, factorised": partial(
        unsupervised, "factorised", "bernoulli", True, partial(_wake_sleep, 0.0)
    ),
    "wake-sleep with binding, factorised": partial(
        unsupervised, "factorised", "bernoulli", True, _wake_sleep
    ),
}
"""The indicator binds calcium cooperatively, as GCaMP6 does; the noise is that of the cells."""
