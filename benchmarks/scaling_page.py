"""The page and the picture of ``scaling`` from its kept runs.

python -m benchmarks.scaling_page
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import scaling
from benchmarks.kept import Run, finished
from benchmarks.scaling_axes import AXES
from benchmarks.scaling_figure import Sweep, figure
from benchmarks.suite import RESULTS
from benchmarks.tables import markdown, mean_and_deviation

__all__ = ["main", "page", "sweeps"]


def sweeps(runs: Mapping[str, Run]) -> dict[str, Sweep]:
    """The runs by axis, by name and by seed, in the order of the sizes."""
    found: dict[str, dict[str, list[Run]]] = {part: {} for part in AXES}
    for part, axis in AXES.items():
        for name in axis.RUNS:
            if seeds := [run for key, run in runs.items() if key.startswith(f"{part}: {name},")]:
                found[part][name] = seeds
    return found


def page(found: Mapping[str, Sweep]) -> str:
    """Markdown: a table for each axis."""
    tables = [
        f"## {part}\n\n{markdown(sweep, mean_and_deviation)}" for part, sweep in found.items()
    ]
    head = (
        f"# Scaling curves\n\n{scaling.__doc__}\n"
        "Means over seeds and the deviation of one of them; a single number is of one seed."
    )
    return "\n\n".join([head.strip(), "![curves](scaling.png)", *tables]) + "\n"


def main() -> None:
    found = sweeps(finished(RESULTS / "scaling.json"))
    (RESULTS / "scaling.md").write_text(page(found), encoding="utf-8")
    figure(found).savefig(RESULTS / "scaling.png", dpi=70)


if __name__ == "__main__":
    main()
