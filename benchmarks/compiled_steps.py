"""Time of a training step with and without compilation, by hand and in Pyro syntax.

The contenders of ``step_time``: one VAE as a Pyro program, and the same arithmetic written by
hand. Each is taken as it is and compiled by torch; ours also replayed operation by operation.
They take turns in random order; ratios are taken within each round, their median is shown.

    python -m benchmarks.compiled_steps --device cpu --threads 1 --repeats 30
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import pyro
import torch
from torch import nn

from benchmarks.contenders import Step
from benchmarks.programs import BY_HAND, NETWORKS, Guide, Model, data
from benchmarks.step_time import Timer, arguments, interleaved
from pyro_lvm import objectives
from pyro_lvm.training import CompiledLoss

__all__ = ["COLUMNS", "contenders", "main", "measured"]

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("by hand", "by hand, compiled", "ours", "ours, graph", "ours, compiled")
_BACKENDS = {"ours, graph": "graph", "ours, compiled": "inductor"}


def contenders(
    network: str,
    num_particles: int,
    name: str,
    gradient: str,
    device: torch.device,
    columns: Sequence[str] = COLUMNS,
) -> tuple[dict[tuple[str, str, str], Step], nn.Module]:
    """The steps by (objective, gradient, column), and what they train."""
    sizes = NETWORKS[network]
    model, guide = Model(sizes).to(device), Guide(sizes).to(device)
    x, by_hand = data(sizes, device), BY_HAND[name, gradient]

    def hand() -> torch.Tensor:
        return by_hand(model.decoder, guide.encoder, x, num_particles)

    def loss(column: str) -> Step:
        if column.startswith("by hand"):
            return torch.compile(hand, dynamic=False) if "compiled" in column else hand
        objective = getattr(objectives, name)(num_particles, gradient)
        if column == "ours":
            return partial(objective(model, guide), x)
        return partial(CompiledLoss(objective, model, guide, backend=_BACKENDS[column]), x)

    steps = {(name, gradient, column): _step(loss(column)) for column in columns}
    return steps, nn.ModuleList([model, guide])


def _step(loss: Step) -> Step:
    def step() -> float:
        value = loss()
        value.backward()  # type: ignore[attr-defined]
        return float(value.detach())  # type: ignore[attr-defined]

    return step


def measured(
    network: str,
    num_particles: int,
    timer: Timer,
    repeats: int,
    columns: Sequence[str] = COLUMNS,
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Milliseconds by column and round, for each objective and gradient."""
    for name, gradient in BY_HAND:
        steps, modules = contenders(network, num_particles, name, gradient, timer.device, columns)
        with pyro.validation_enabled(False):
            times = interleaved(steps, modules, timer, repeats)
        label = f"{network} | {num_particles} | {name} {gradient}"
        yield label, {column: each for (*_, column), each in times.items()}
        torch.compiler.reset()


def _row(label: str, times: dict[str, list[float]]) -> str:
    first = times[COLUMNS[0]]
    ratios = [
        median(a / b for a, b in zip(times[column], first, strict=True)) for column in COLUMNS[1:]
    ]
    return f"| {label} | {median(first):.2f} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |"


def main() -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    pyro.settings.set(module_local_params=True)
    timer = Timer(options.device, options.clock)
    head = (
        "| network | K | objective | by hand ms | by hand, compiled | ours | ours, graph "
        "| ours, compiled |\n|" + " --- |" * 8
    )
    lines = [
        f"# Time of one training step on {timer.device.type}, compiled and not\n",
        f"`python -m benchmarks.compiled_steps`: median {timer.clock} time of {options.repeats} "
        f"rounds in random order, {options.threads} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pyro {pyro.__version__}; from the fifth column on, times that "
        "of the step by hand in the same round. Argument checks are off.\n",
        head,
    ]
    print("\n".join(lines))
    for network in options.networks:
        for num_particles in options.particles:
            for label, times in measured(network, num_particles, timer, options.repeats):
                lines.append(_row(label, times))
                print(lines[-1], flush=True)
    if options.save:
        path = RESULTS / f"compiled_steps_{timer.device.type}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
