"""The comparison as text: aligned Markdown to read, CSV to compute with."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from pyro_lvm.cli.evaluation import Summary

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
    "ms/step",
)


def markdown(rows: Sequence[Summary]) -> str:
    """An aligned table; bound and log p(x) in nats per datum, ~ before estimates of bounds.

    Example:
        >>> row = Summary("ELBO", -23.1, -22.7, 0.3, 0.05, 0.0, 0.0, 0.01, 0.4, 0.0021)
        >>> print(markdown([row]))
        | objective |  bound | log p(x) | ± data | ± seeds |  gain | ± gain | k-hat > 0.7 | ESS | ms/step |
        |:----------|-------:|---------:|-------:|--------:|------:|-------:|------------:|----:|--------:|
        | ELBO      | -23.10 |   -22.70 |   0.30 |    0.05 | +0.00 |   0.00 |          1% | 40% |     2.1 |
    """  # noqa: E501
    table = [_HEADINGS, *[_cells(row) for row in rows]]
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
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Summary)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return text
