"""The comparison as text: aligned Markdown to read, CSV to compute with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyro_lvm.cli.evaluation import Summary
from pyro_lvm.training.files import written_whole

__all__ = ["markdown", "write_table"]

_HEADINGS = (
    "objective",
    "bound",
    "log p(x)",
    "± data",
    "± seeds",
    "gain",
    "± gain",
    "k-hat > 0.7",
    "ESS",
    "active",
    "KL",
    "ms/step",
)


def markdown(rows: Sequence[Summary]) -> str:
    """An aligned table; bound and log p(x) in nats per datum, ~ before estimates of bounds.

    Example:
        >>> row = Summary("ELBO", -23.1, -22.7, 0.3, 0.05, 0.0, 0.0, 0.01, 0.4, 0.0021,
        ...     kl={"z1": 3.1, "z2": 0.02}, active_units={"z1": 14, "z2": 0}, num_units=24)
        >>> print(markdown([row]))
        | objective |  bound | log p(x) | ± data | ± seeds |  gain | ± gain | k-hat > 0.7 | ESS | active | KL z1/z2 | ms/step |
        |:----------|-------:|---------:|-------:|--------:|------:|-------:|------------:|----:|-------:|---------:|--------:|
        | ELBO      | -23.10 |   -22.70 |   0.30 |    0.05 | +0.00 |   0.00 |          1% | 40% |  14/24 |  3.1/0.0 |     2.1 |
    """  # noqa: E501
    sites = "/".join(rows[0].kl)
    headings = tuple(f"KL {sites}".strip() if name == "KL" else name for name in _HEADINGS)
    table = [headings, *[_cells(row) for row in rows]]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS))]
    lines = [_line(line, widths) for line in table]
    return "\n".join([lines[0], _rule(widths), *lines[1:]])


def _cells(row: Summary) -> tuple[str, ...]:
    return (
        row.objective,
        _estimated(row.bound_is_estimate) + f"{row.bound:.2f}",
        f"{row.log_evidence:.2f}",
        _known(row.data_error),
        _known(row.seed_error),
        f"{row.gain:+.2f}",
        _known(row.gain_error),
        _estimated(row.weights_are_estimates) + f"{row.khat_share:.0%}",
        _estimated(row.weights_are_estimates) + f"{row.effective_share:.0%}",
        f"{round(sum(row.active_units.values()), 1):g}/{row.num_units}" if row.num_units else "-",
        "/".join(f"{kl:z.1f}" for kl in row.kl.values()) or "-",
        _known(1000 * row.seconds_per_step, digits=1),
    )


def _estimated(holds: bool) -> str:
    return "~" if holds else ""


def _known(value: float, digits: int = 2) -> str:
    """A dash for what could not be measured: one seed's error, a finished run's step time."""
    return "-" if value != value else f"{value:.{digits}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *rest]) + " |"


def _rule(widths: Sequence[int]) -> str:
    first = ":" + "-" * (widths[0] + 1)
    return "|" + "|".join([first, *["-" * (width + 1) + ":" for width in widths[1:]]]) + "|"


def write_table(rows: Sequence[Summary], legend: str, folder: Path) -> str:
    """Write table.md, and table.csv with all digits; returns the former's text."""
    text = f"{markdown(rows)}\n\n{legend}"
    with written_whole(folder / "table.md") as path:
        path.write_text(text + "\n", encoding="utf-8")
    records = [_record(row) for row in rows]
    with (
        written_whole(folder / "table.csv") as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return text


def _record(row: Summary) -> dict[str, Any]:
    """By column; what a row has by latent site takes one for each."""
    columns = asdict(row)
    by_site = {key: columns.pop(key) for key in ("kl", "active_units")}
    return columns | {f"{key}_{site}": v for key, of in by_site.items() for site, v in of.items()}
