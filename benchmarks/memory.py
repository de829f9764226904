"""Bytes that one step keeps for its backward pass: ours, by hand, and Pyro's.

Every tensor that autograd saves is counted once, by storage, parameters and data apart, and
booked on the network that saved it; the rest is the programs' own arithmetic. Only what
depends on the latents may grow with K: the decoder and the log-probabilities, not the
encoder. On a GPU the allocator's own peak is shown too; on the CPU, steps in chunks.

    python -m benchmarks.memory --device cpu
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks import memory_chunks
from benchmarks.command_line import parser_of
from benchmarks.contenders import Step, contenders
from benchmarks.programs import NETWORKS, Guide, Model, data

__all__ = ["REST", "Row", "main", "markdown", "measure", "saving_on"]

RESULTS = Path(__file__).parent / "results"
REST = "rest"
Saved = dict[str, dict[int, int]]


@contextmanager
def saving_on(modules: Mapping[str, nn.Module], known: list[Tensor]) -> Iterator[Saved]:
    """Book each storage that autograd saves on the module whose forward is running.

    Args:
        modules: networks to tell apart, by label; they are not inside one another.
        known: tensors that exist without the step (data); not counted, as parameters are not.
    """
    saved: Saved = {label: {} for label in (*modules, REST)}
    running = [REST]
    skipped = {_storage(t) for t in known} | {
        _storage(p) for module in modules.values() for p in module.parameters()
    }

    def pack(tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in skipped and not any(storage in seen for seen in saved.values()):
            saved[running[-1]][storage] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = [h for label, module in modules.items() for h in _mark(module, label, running)]
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield saved
    finally:
        for hook in hooks:
            hook.remove()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _mark(
    module: nn.Module, label: str, running: list[str]
) -> list[torch.utils.hooks.RemovableHandle]:
    def enter(*_: object) -> None:
        running.append(label)

    def leave(*_: object) -> None:
        running.pop()

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


@dataclass(frozen=True)
class Row:
    """Bytes one step saves for backward, by the network that saved them."""

    network: str
    particles: int
    objective: str
    side: str
    encoder: int
    decoder: int
    rest: int
    peak: int | None  # of the allocator, on a GPU


def measure(network: str, num_particles: int, device: torch.device) -> Iterator[Row]:
    """One row for each objective and side but Pyro's loop, which keeps one draw at a time."""
    sizes = NETWORKS[network]
    model, guide, x = Model(sizes).to(device), Guide(sizes).to(device), data(sizes, device)
    networks = {"encoder": guide.encoder, "decoder": model.decoder}
    for (name, gradient, side), step in contenders(model, guide, x, num_particles).items():
        if side == "Pyro looped":
            continue
        step()  # finds the plates
        with saving_on(networks, [x]) as saved:
            peak = _peak(step, device)
        kept = {label: sum(storages.values()) for label, storages in saved.items()}
        yield Row(network, num_particles, f"{name} {gradient}", side, peak=peak, **kept)


def _peak(step: Step, device: torch.device) -> int | None:
    if device.type != "cuda":
        step()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def markdown(rows: list[Row]) -> str:
    """The rows as a table, in KiB."""
    head = "| network | objective | side | K | encoder KiB | decoder KiB | rest KiB | peak KiB |"
    lines = [
        f"| {r.network} | {r.objective} | {r.side} | {r.particles} | {r.encoder / 1024:.0f} "
        f"| {r.decoder / 1024:.0f} | {r.rest / 1024:.0f} "
        f"| {'-' if r.peak is None else format(r.peak / 1024, '.0f')} |"
        for r in rows
    ]
    return "\n".join([head, "|" + " --- |" * 8, *lines])


def main() -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["mnist"])
    parser.add_argument("--draws", type=int, default=5000, help="in chunks, and at once")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    rows = [
        row
        for network in options.networks
        for num_particles in options.particles
        for row in measure(network, num_particles, options.device)
    ]
    rows.sort(key=lambda row: (row.network, row.objective, row.side, row.particles))
    networks = "; ".join(f"{n}: {NETWORKS[n]}" for n in options.networks)
    text = f"# Memory a step keeps for backward, on {options.device.type} ({networks})\n\n"
    text += f"    python -m benchmarks.memory --device {options.device.type}\n\n{markdown(rows)}"
    if options.device.type == "cpu":
        text += f"\n\n{memory_chunks.section(options.draws)}"
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"memory_{options.device.type}.md"
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
