"""One guide for recordings of any frame rate, beside a guide for each.

Guides learn from simulated GCaMP6f cells at 7.5, 30 and 120 frames per second: one guide for all
three, which knows the rate; the same, told that every recording has 60; and a guide for each, of
as many steps in sum. 15 and 60 Hz are rates that the one guide has not seen. Judged on other cells,
150 of each rate: log q of the true spikes (nats a second, higher is better) and the correlation of
probabilities and spikes frame by frame (median over cells that spike). Finished seeds are kept in
a file in ``results``: started again, it goes on with the others.

    python -m benchmarks.spike_rates --steps 300 --seeds 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pyro
import torch
from torch import Tensor, nn

from benchmarks.command_line import parser_of
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.models.calcium_simulation import draw_cells, record
from pyro_lvm.nn import TraceEncoder

__all__ = ["Score", "Untold", "judge", "main", "outcome", "run", "table", "train"]

RESULTS = Path(__file__).parent / "results"
SEEN, UNSEEN = (7.5, 30.0, 120.0), (15.0, 60.0)
PRESET, BATCH, FRAMES, NUM_TEST = "gcamp6f", 16, 300, 150


class Score(NamedTuple):
    """On test cells of one rate: nats a second, and a correlation."""

    log_q: float
    r: float


class Untold(nn.Module):
    """An encoder that takes every recording for one of 60 frames per second."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TraceEncoder()
        self.out_features = self.inner.out_features

    def forward(self, x: Tensor, rate: float) -> Tensor:
        features: Tensor = self.inner(x, 60.0)
        return features


def train(encoder: TraceEncoder | Untold, rates: tuple[float, ...], steps: int) -> SpikeGuide:
    """Maximum likelihood of simulated spikes given their traces, the rates in turn."""
    guide = SpikeGuide(encoder, encoder_features=encoder.out_features)
    optimizer = torch.optim.Adam(guide.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * len(rates))
    for rate in rates * steps:
        traces, spikes, _ = record(draw_cells(PRESET, BATCH, rate), FRAMES)
        optimizer.zero_grad()
        (-guide.at(rate).posterior(traces).log_prob(spikes).mean()).backward()
        nn.utils.clip_grad_norm_(guide.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return guide


@torch.no_grad()
def judge(guide: SpikeGuide, rate: float) -> Score:
    """On new cells of this rate, 10 seconds or 300 frames of each, whichever is more."""
    frames = max(FRAMES, round(10 * rate))
    traces, spikes, _ = record(draw_cells(PRESET, NUM_TEST, rate), frames)
    posterior = guide.at(rate).posterior(traces)
    pairs = zip(posterior.mean, spikes, strict=True)
    r = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs if pair[1].any()]
    log_q = posterior.log_prob(spikes).mean() * rate / frames
    return Score(log_q.item(), torch.stack(r).median().item())


def outcome(path: Path | None, seed: int, steps: int) -> dict[str, dict[str, Score]]:
    """What ``run`` found, now or before, by the file ``path`` if there is one."""
    kept = json.loads(path.read_text()) if path and path.is_file() else {}
    key = f"seed {seed}, {steps} steps"
    if key not in kept:
        kept[key] = run(seed, steps)
        if path:
            path.write_text(json.dumps(kept, indent=1) + "\n")
    return {
        name: {rate: Score(*score) for rate, score in by_rate.items()}
        for name, by_rate in kept[key].items()
    }


def run(seed: int, steps: int) -> dict[str, dict[str, Score]]:
    """All guides of one seed, judged on the same cells, by rate."""
    guides: dict[str, Mapping[float, SpikeGuide]] = {}
    for name, encoder in {"one guide": TraceEncoder, "one guide, not told": Untold}.items():
        pyro.set_rng_seed(seed)
        guides[name] = dict.fromkeys(SEEN + UNSEEN, train(encoder(), SEEN, steps))
    pyro.set_rng_seed(seed)
    guides["a guide a rate"] = {rate: train(TraceEncoder(), (rate,), steps) for rate in SEEN}
    return {name: _judged(by_rate, seed) for name, by_rate in guides.items()}


def _judged(guides: Mapping[float, SpikeGuide], seed: int) -> dict[str, Score]:
    pyro.set_rng_seed(1000 + seed)
    return {f"{rate:g}": judge(guide, rate) for rate, guide in guides.items()}


def table(seeds: Sequence[Mapping[str, Mapping[str, Score]]]) -> str:
    """A line a kind of guide: log q and r at each rate, means over seeds."""
    rates = SEEN + UNSEEN
    heads = [f"{rate:g} Hz" + (", not seen" if rate in UNSEEN else "") for rate in rates]
    lines = [f"| | {' | '.join(heads)} |", "|" + " --- |" * (len(rates) + 1)]
    for name in seeds[0]:
        cells = [_cell([seed[name].get(f"{rate:g}") for seed in seeds]) for rate in rates]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Sequence[Score | None]) -> str:
    scores = [score for score in found if score is not None]
    if not scores:
        return ""
    log_q = [score.log_q for score in scores]
    spread = f"{min(log_q):.2f} to {max(log_q):.2f}"
    return f"{mean(log_q):.2f} ({spread}); {mean(score.r for score in scores):.2f}"


def main() -> None:
    """Train on all seeds, print the table, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=300, help="for each rate")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    path, seeds = RESULTS / "spike_rates.json" if options.save else None, []
    for seed in range(options.seeds):
        seeds.append(outcome(path, seed, options.steps))
        print(table(seeds), flush=True)
    command = f"python -m benchmarks.spike_rates --steps {options.steps} --seeds {options.seeds}"
    title = "# One guide of spikes for any frame rate: log q of true spikes, nats a second; r"
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        text = f"{title}\n\n{table(seeds)}\n\n`{command}`\n"
        (RESULTS / "spike_rates.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
