"""Time of one training step, without the optimiser's: ours, by hand, and Pyro's.

A step is: drop the gradients, compute the loss, call backward. All contenders share one
encoder and decoder and take turns in random order, so that a busy machine slows all of
them; a ratio is taken within each round, and its median and range over rounds are shown.

    python -m benchmarks.step_time --device cpu --threads 1 --repeats 30
"""

from __future__ import annotations

import argparse
import csv
import platform
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import pyro
import torch
from torch import nn

from benchmarks.command_line import parser_of
from benchmarks.contenders import Step, contenders
from benchmarks.programs import BY_HAND, NETWORKS, Guide, Model, data

__all__ = ["Row", "main", "markdown", "measure"]

RESULTS = Path(__file__).parent / "results"
WARM_UP = 3
CLOCKS = {"wall": perf_counter, "cpu": process_time}


@dataclass(frozen=True)
class Row:
    """One line of the table; times are medians in milliseconds."""

    network: str
    particles: int
    objective: str
    gradient: str
    validation: bool
    ours_ms: float
    by_hand_ms: float
    pyro_vectorised_ms: float
    pyro_looped_ms: float
    over_by_hand: float
    over_by_hand_min: float
    over_by_hand_max: float
    over_pyro: float
    over_pyro_min: float
    over_pyro_max: float


@dataclass(frozen=True)
class Timer:
    """Times a step on ``device`` by one of ``CLOCKS``, gradients dropped first."""

    device: torch.device
    clock: str

    def __call__(self, step: Step, modules: nn.Module) -> float:  # milliseconds
        now = CLOCKS[self.clock]
        self._synchronise()
        start = now()
        modules.zero_grad(set_to_none=True)
        step()
        self._synchronise()
        return 1e3 * (now() - start)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def interleaved(
    steps: dict[tuple[str, str, str], Step], modules: nn.Module, timer: Timer, repeats: int
) -> dict[tuple[str, str, str], list[float]]:
    """Milliseconds by contender, one entry a round; the first rounds are thrown away."""
    times: dict[tuple[str, str, str], list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(WARM_UP + repeats):
        random.shuffle(order)
        for name in order:
            times[name].append(timer(steps[name], modules))
    return {name: each[WARM_UP:] for name, each in times.items()}


def measure(
    network: str, num_particles: int, timer: Timer, repeats: int, validation: bool
) -> Iterator[Row]:
    """One row for each objective and gradient."""
    sizes, device = NETWORKS[network], timer.device
    model, guide = Model(sizes).to(device), Guide(sizes).to(device)
    with pyro.validation_enabled(validation):
        steps = contenders(model, guide, data(sizes, device), num_particles)
        times = interleaved(steps, nn.ModuleList([model, guide]), timer, repeats)
    for name, gradient in BY_HAND:
        ours, by_hand = times[name, gradient, "ours"], times[name, gradient, "by hand"]
        theirs = times[name, "reparam", "Pyro vectorised"]
        yield Row(
            network,
            num_particles,
            name,
            gradient,
            validation,
            median(ours),
            median(by_hand),
            median(theirs),
            median(times[name, "reparam", "Pyro looped"]),
            *_ratio(ours, by_hand),
            *_ratio(ours, theirs),
        )


def _ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    ratios = [a / b for a, b in zip(ours, theirs)]
    return median(ratios), min(ratios), max(ratios)


def markdown(rows: list[Row]) -> str:
    """The rows as a table for people; the CSV has the same numbers."""
    head = (
        "| network | K | objective | validation | ours ms | by hand ms | Pyro vectorised ms | "
        "Pyro looped ms | ours / by hand (range) | ours / Pyro vectorised (range) |"
    )
    lines = [
        f"| {r.network} | {r.particles} | {r.objective} {r.gradient} "
        f"| {'on' if r.validation else 'off'} | {r.ours_ms:.2f} | {r.by_hand_ms:.2f} "
        f"| {r.pyro_vectorised_ms:.2f} | {r.pyro_looped_ms:.2f} "
        f"| **{r.over_by_hand:.2f}** ({r.over_by_hand_min:.2f}-{r.over_by_hand_max:.2f}) "
        f"| **{r.over_pyro:.2f}** ({r.over_pyro_min:.2f}-{r.over_pyro_max:.2f}) |"
        for r in rows
    ]
    return "\n".join([head, "|" + " --- |" * 10, *lines])


def describe(timer: Timer, repeats: int) -> str:
    """Where and how the numbers were made."""
    device = timer.device
    chip = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    networks = "; ".join(f"{n}: {s}, batch {s.batch_size}" for n, s in NETWORKS.items())
    return (
        f"# Time of one training step on {device.type}\n\n"
        f"{chip}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pyro {pyro.__version__}; median {timer.clock} time of "
        f"{repeats} rounds in random order, ratios taken within a round. {networks}.\n\n"
        "A step is zero_grad, loss and backward, without the optimiser. Pyro has the plain "
        "gradient only: its columns repeat for stl and dreg. Validation is Pyro's check of "
        "arguments and samples, on by default.\n"
    )


def save(rows: list[Row], text: str, device: torch.device) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"step_time_{device.type}"
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What benchmarks of a step are asked for."""
    parser = parser_of(description)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: not disturbed by other programs"
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    return parser


def parse() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--validate",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="check arguments and samples; both settings are measured if left out",
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    options = parse()
    torch.set_num_threads(options.threads)
    pyro.settings.set(module_local_params=True)
    timer = Timer(options.device, options.clock)
    settings = (True, False) if options.validate is None else (options.validate,)
    rows = [
        row
        for validation in settings
        for network in options.networks
        for num_particles in options.particles
        for row in measure(network, num_particles, timer, options.repeats, validation)
    ]
    text = describe(timer, options.repeats) + "\n" + markdown(rows)
    print(text)
    if options.save:
        save(rows, text, options.device)


if __name__ == "__main__":
    main()
