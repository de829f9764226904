"""The height of one spike by fluorescence alone: how far from the truth a model starts.

Cells are simulated, ``--cells`` of each kind and seed. A start is off by the mean of
|log(start / true height)|; the usual height is the indicator's, 0.19 (GCaMP6f) or 0.23 (GCaMP6s)
dF/F. "found" is the share of cells whose height is taken from their traces: elsewhere noise hides
single spikes, or there are too few, and the usual one stays.

    python -m benchmarks.spike_heights --seeds 3
"""

from __future__ import annotations

from statistics import mean
from typing import NamedTuple

import torch

from benchmarks.command_line import parser_of
from pyro_lvm.models import LinearCalcium
from pyro_lvm.models.calcium_simulation import draw_cells, record, scale_of_level

__all__ = ["KINDS", "Kind", "Start", "main", "run", "table"]


class Kind(NamedTuple):
    """Cells of a preset; ``noise`` in place of its range of noise levels, % per root Hz."""

    preset: str
    rate: float
    frames: int
    bursts: float
    noise: tuple[float, float] | None = None


class Start(NamedTuple):
    """Means over cells."""

    usual: float
    found_error: float
    found: float


QUIET = (0.3, 0.6)
KINDS = {
    "linear, 60 Hz, 33 s": Kind("linear", 60.0, 2000, 0.0),
    "linear, 60 Hz, 33 s, bursts": Kind("linear", 60.0, 2000, 0.2),
    "GCaMP6f, 60 Hz, 33 s, bursts": Kind("gcamp6f", 60.0, 2000, 0.2),
    "GCaMP6f, 60 Hz, 217 s, bursts, little noise": Kind("gcamp6f", 60.0, 13000, 0.2, QUIET),
    "GCaMP6f, 7.5 Hz, 267 s, bursts": Kind("gcamp6f", 7.5, 2000, 0.2),
    "GCaMP6s, 30 Hz, 200 s, bursts": Kind("gcamp6s", 30.0, 6000, 0.2),
}


@torch.no_grad()
def run(kind: Kind, cells: int, seed: int) -> Start:
    """One recording of cells of a kind."""
    torch.manual_seed(seed)
    truth = draw_cells(kind.preset, cells, kind.rate)
    if kind.noise is not None:
        level = torch.empty(cells).uniform_(*kind.noise)
        truth.noise_scale = scale_of_level(level, kind.rate)
    traces = record(truth, kind.frames, kind.bursts).traces
    indicator = "gcamp6s" if kind.preset == "gcamp6s" else "gcamp6f"
    model = LinearCalcium(kind.rate, indicator, rise=kind.preset != "linear", num_cells=cells)
    usual = model.amplitude.clone()
    model.start_at(traces)
    off = [(height / truth.amplitude).log().abs().mean() for height in (usual, model.amplitude)]
    return Start(float(off[0]), float(off[1]), float((model.amplitude != usual).float().mean()))


def table(found: dict[str, list[Start]]) -> str:
    """A line a kind: means over seeds, and the range of the start's."""
    lines = ["| cells | usual height is off by | start is off by | found |", "|" + " --- |" * 4]
    for name, seeds in found.items():
        errors = [start.found_error for start in seeds]
        lines.append(
            f"| {name} | {mean(s.usual for s in seeds):.2f} "
            f"| {mean(errors):.2f} ({min(errors):.2f} to {max(errors):.2f}) "
            f"| {mean(s.found for s in seeds):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    print(table({n: [run(kind, options.cells, s) for s in seeds] for n, kind in KINDS.items()}))


if __name__ == "__main__":
    main()
