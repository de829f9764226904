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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pyro
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor, nn

from benchmarks.programs import BY_HAND, NETWORKS, Guide, Model, data
from pyro_lvm import objectives

__all__ = ["Row", "contenders", "main", "markdown", "measure"]

RESULTS = Path(__file__).parent / "results"
WARM_UP = 3
Step = Callable[[], object]


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


def pyro_objective(name: str, num_particles: int, vectorised: bool) -> Any:
    """Pyro's class of the same bound; it has the plain gradient only."""
    options = {
        "num_particles": num_particles,
        "vectorize_particles": vectorised,
        "max_plate_nesting": 1,
    }
    return Trace_ELBO(**options) if name == "ELBO" else RenyiELBO(alpha=0, **options)


def contenders(
    model: Model, guide: Guide, x: Tensor, num_particles: int
) -> dict[tuple[str, str, str], Step]:
    """Each step by (objective, gradient, side); Pyro has the plain gradient only."""
    steps: dict[tuple[str, str, str], Step] = {}
    for (name, gradient), by_hand in BY_HAND.items():
        ours = getattr(objectives, name)(num_particles, gradient)
        steps[name, gradient, "ours"] = _bound(ours.loss_and_grads, model, guide, x)
        steps[name, gradient, "by hand"] = _backward(
            by_hand, model.decoder, guide.encoder, x, num_particles
        )
    for name in ("ELBO", "IWAE"):
        for side, vectorised in (("Pyro vectorised", True), ("Pyro looped", False)):
            theirs = pyro_objective(name, num_particles, vectorised)
            steps[name, "reparam", side] = _bound(theirs.loss_and_grads, model, guide, x)
    return steps


def _bound(step: Callable[..., float], *args: object) -> Step:
    return lambda: step(*args)


def _backward(loss: Callable[..., Tensor], *args: object) -> Step:
    def step() -> float:
        value = loss(*args)
        value.backward()
        return value.item()

    return step


def timed(step: Step, modules: nn.Module, device: torch.device) -> float:
    """Milliseconds of one step, gradients dropped first."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    modules.zero_grad(set_to_none=True)
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (perf_counter() - start)


def interleaved(
    steps: dict[tuple[str, str, str], Step], modules: nn.Module, device: torch.device, repeats: int
) -> dict[tuple[str, str, str], list[float]]:
    """Milliseconds by contender, one entry a round; the first rounds are thrown away."""
    times: dict[tuple[str, str, str], list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(WARM_UP + repeats):
        random.shuffle(order)
        for name in order:
            times[name].append(timed(steps[name], modules, device))
    return {name: each[WARM_UP:] for name, each in times.items()}


def measure(
    network: str, num_particles: int, device: torch.device, repeats: int, validation: bool
) -> Iterator[Row]:
    """One row for each objective and gradient."""
    sizes = NETWORKS[network]
    model, guide = Model(sizes).to(device), Guide(sizes).to(device)
    with pyro.validation_enabled(validation):
        steps = contenders(model, guide, data(sizes, device), num_particles)
        times = interleaved(steps, nn.ModuleList([model, guide]), device, repeats)
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


def describe(device: torch.device, repeats: int) -> str:
    """Where and how the numbers were made."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    networks = "; ".join(f"{n}: {s}, batch {s.batch_size}" for n, s in NETWORKS.items())
    return (
        f"# Time of one training step on {device.type}\n\n"
        f"{chip}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pyro {pyro.__version__}; median of {repeats} rounds in "
        f"random order. Networks: {networks}. A step is zero_grad, loss and backward, without "
        "the optimiser. Pyro has the plain gradient only: its columns repeat for stl and dreg. "
        "Validation is Pyro's check of arguments and samples, on by default.\n"
    )


def save(rows: list[Row], text: str, device: torch.device) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"step_time_{device.type}"
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument(
        "--validate",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="check arguments and samples; both settings are measured if left out",
    )
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    options = parse()
    torch.set_num_threads(options.threads)
    pyro.settings.set(module_local_params=True)
    settings = (True, False) if options.validate is None else (options.validate,)
    rows = [
        row
        for validation in settings
        for network in options.networks
        for num_particles in options.particles
        for row in measure(network, num_particles, options.device, options.repeats, validation)
    ]
    text = describe(options.device, options.repeats) + "\n" + markdown(rows)
    print(text)
    if options.save:
        save(rows, text, options.device)


if __name__ == "__main__":
    main()
