"""``pyro-lvm spikes``: spikes with their uncertainty from a file of fluorescence traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from pyro_lvm.cli.catalog import pick
from pyro_lvm.cli.configs import CommandConfig, TrainConfig
from pyro_lvm.cli.folders import list_files, open_folder
from pyro_lvm.cli.spike_guides import at_rate_of, load_guide, save_guide
from pyro_lvm.cli.spike_report import SpikeDraws, summary, write_spikes
from pyro_lvm.data import Traces, delta_f, read_traces, snippets
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.nn import check_positive, check_size
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ReweightedWakeSleep
from pyro_lvm.training import fit

__all__ = ["SpikesConfig", "infer_spikes"]

_FRAMES_AT_A_TIME = 1_000_000


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=400, batch_size=20, learning_rate=2e-3, max_grad_norm=1.0, evaluate_every=100
    )


@dataclass(frozen=True, kw_only=True)
class SpikesConfig(CommandConfig):
    """Infer the spikes of cells from their fluorescence, with posterior draws and figures.

    A model of fluorescence is started at each cell's noise, baseline and, where noise lets it be
    seen, size of transients. A guide is trained on recordings that the model dreams and, in part,
    on the recording itself. No true spikes are needed; where the file has them, they are used to
    judge the result and for nothing else.

    Args:
        traces: CSV file, one row a frame and one column a cell, or .npy or .npz
        rate: frames a second (Hz); may be left out if the file has times or says it
        cells_in: columns or rows, to insist on where the cells are in the file
        drop_dead: leave out cells that are never observed or constant
        raw: the traces are raw fluorescence, of which dF/F is taken first
        model: how fluorescence follows spikes
        indicator: whose rise, decay and usual size of transients the model starts from
        amplitude: the size to start at, where it is known: dF/F of one spike (LinearCalcium)
        decay: the decay to start at, in seconds
        guide: run directory of an earlier recording, whose guide is used as it is: no training
        posterior: factorised is fast; autoregressive knows that a spike is in one frame or the next
        counts: a frame may hold several spikes, as it does below some 30 Hz; else one at most
        insomnia: share of the recording itself, beside dreams, in what the guide learns from
        num_particles: draws per stretch of recording in training
        snippet: seconds of recording that are seen at once in training
        num_samples: posterior draws to write
        num_figures: cells to draw, from the first
        seed: of the parameters, the batches and the draws
    """

    traces: str
    rate: float | None = None
    cells_in: Literal["columns", "rows"] | None = None
    drop_dead: bool = False
    raw: bool = False
    model: Literal["LinearCalcium", "SaturatingCalcium", "PhysiologicalCalcium"] = "LinearCalcium"
    indicator: Literal["gcamp6f", "gcamp6s"] = "gcamp6f"
    amplitude: float | None = None
    decay: float | None = None
    guide: str | None = None
    posterior: Literal["factorised", "autoregressive"] = "factorised"
    counts: bool = False
    insomnia: float = 0.5
    num_particles: int = 10
    snippet: float = 5.0
    train: TrainConfig = field(default_factory=_budget)
    num_samples: int = 100
    num_figures: int = 10
    seed: int = 0
    out: str = "runs/spikes"

    @property
    def posteriors(self) -> dict[str, Any]:
        """Options of the guide."""
        return {"posterior": self.posterior, "counts": self.counts}


def infer_spikes(config: SpikesConfig) -> None:
    """Read the traces, train, and write spikes, posterior and figures to ``config.out``."""
    pyro.set_rng_seed(config.seed)
    recorded = _read(config)
    guide, traces = _start(config, recorded)
    model = _model(config, traces)
    objective = ReweightedWakeSleep(
        config.num_particles, insomnia=config.insomnia, arguments=_dreamt_traces
    )
    num_samples = check_size("num_samples", config.num_samples)
    folder = open_folder(config)
    print(f"{config.traces}: {recorded}", flush=True)
    if traces.rate != recorded.rate:
        print(f"resampled to {traces.rate:g} Hz, the rate of the guide and of all that is written")
    if config.guide is None:
        _train(config, traces, model, guide, objective, folder)
        save_guide(guide, config.posteriors, folder)
    pyro.set_rng_seed(config.seed)
    drawn = _draw(traces, model, guide, num_samples)
    write_spikes(traces, model, drawn, folder, num_figures=config.num_figures, seed=config.seed)
    print(f"\n{summary(traces, drawn)}\n\n{list_files(folder)}")


def _read(config: SpikesConfig) -> Traces:
    traces = read_traces(
        config.traces, config.rate, cells_in=config.cells_in, drop_dead=config.drop_dead
    )
    return delta_f(traces) if config.raw else traces


def _start(config: SpikesConfig, traces: Traces) -> tuple[SpikeGuide, Traces]:
    if config.guide is not None:
        return at_rate_of(load_guide(Path(config.guide)), traces)
    return SpikeGuide(rate=traces.rate, **config.posteriors), traces


def _model(config: SpikesConfig, traces: Traces) -> Any:
    options: dict[str, Any] = {"rise": True} if config.model == "LinearCalcium" else {}
    options |= {"num_cells": len(traces), "spikes": "poisson" if config.counts else "bernoulli"}
    model = pick("models", config.model)(traces.rate, config.indicator, **options)
    model.start_at(traces.x)
    for name in ("amplitude", "decay"):
        if (given := getattr(config, name)) is not None:
            start = check_positive(name, given, "0.2")
            setattr(model, name, torch.full_like(getattr(model, name).detach(), start))
    return model


def _train(
    config: SpikesConfig,
    traces: Traces,
    model: Any,
    guide: SpikeGuide,
    objective: Objective,
    folder: Path,
) -> None:
    length = min(max(2, round(config.snippet * traces.rate)), traces.x.shape[1])
    windows = snippets(traces, length)
    budget = config.train
    result = fit(
        model,
        guide,
        (windows.x, windows.cell),
        objective,
        max_steps=budget.steps,
        batch_size=min(budget.batch_size, len(windows.x)),
        lr=budget.learning_rate,
        lr_scheduler="cosine" if budget.schedule == "cosine" else None,
        max_grad_norm=budget.max_grad_norm or None,
        seed=config.seed,
        allow_nan=True,
        accelerator=budget.accelerator,
        evaluate_every=budget.evaluate_every,
        checkpoint_every=budget.evaluate_every,
        diagnostic_particles=0,
        run_dir=folder,
        resume=config.resume,
    )
    if result.interrupted:
        raise KeyboardInterrupt


def _dreamt_traces(data: Mapping[str, Tensor]) -> Tensor:
    """What the guide reads of a dream."""
    return data["x"]


@torch.no_grad()
def _draw(traces: Traces, model: Any, guide: SpikeGuide, num_samples: int) -> SpikeDraws:
    """Draws of all cells, made for some cells at a time so that features fit into memory."""
    x = traces.x.to(next(guide.parameters()).device)
    rows = max(1, _FRAMES_AT_A_TIME // x.shape[1])
    size = torch.Size([num_samples])
    spikes = torch.cat([guide.posterior(part).sample(size) for part in x.split(rows)], 1)
    return SpikeDraws(
        spikes.cpu(),
        model.fluorescence(spikes).cpu(),
        model.decode(spikes).sample().cpu(),
    )
