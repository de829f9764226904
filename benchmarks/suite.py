"""The command line of a benchmark that is made of named runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks import kept
from benchmarks.command_line import parser_of
from benchmarks.tables import markdown

__all__ = ["RESULTS", "Suite"]

RESULTS = Path(__file__).parent / "results"

Outcomes = Mapping[str, Sequence[kept.Run]]
"""What was found, by the name of a run and by seed."""


@dataclass(frozen=True)
class Suite:
    """Runs of several parts, each on several seeds; those that are finished are kept.

    Attributes:
        name: of the file of finished runs in ``results``.
        about: what is measured and how to call it, for ``--help``.
        parts: by name, modules with ``RUNS``, the names of their runs, and ``run(name, seed,
            steps)``, which gives the columns of a table; with ``picture(steps)`` one can be drawn.
        tables: how a part's runs are shown where it is not seed by seed.
        unit: of what ``steps`` counts.
    """

    name: str
    about: str | None
    parts: Mapping[str, Any]
    tables: Mapping[str, Callable[[Outcomes], str]] = field(default_factory=dict)
    unit: str = "steps"

    def outcome(
        self, path: Path | None, part: str, name: str, seed: int, steps: int | None = None
    ) -> kept.Run:
        """What one run found, now or before, by the file of finished runs if there is one."""
        pyro.clear_param_store()
        return kept.outcome(self.parts, path, part, name, seed, steps, self.unit)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run what is not yet done, print the tables, draw the pictures that are asked for."""
        options = self._parse(arguments)
        torch.set_num_threads(1)
        pyro.settings.set(module_local_params=True)
        pyro.enable_validation(False)
        for part in options.parts or self.parts:
            if options.seeds:
                table = self.tables.get(part, markdown)
                print(f"## {part}\n\n{table(self._outcomes(part, options))}\n", flush=True)
            if options.picture and hasattr(self.parts[part], "picture"):
                figure = self.parts[part].picture(options.steps)
                figure.savefig(RESULTS / f"{self.name}_{part}.png".replace(" ", "_"), dpi=80)

    def _outcomes(self, part: str, options: argparse.Namespace) -> Outcomes:
        """Seed by seed, so that all runs of the first are there early."""
        path = RESULTS / f"{self.name}.json" if options.save else None
        outcomes: dict[str, list[kept.Run]] = {n: [] for n in options.runs or self.parts[part].RUNS}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for name, runs in outcomes.items():
                runs.append(self.outcome(path, part, name, seed, options.steps))
        return outcomes

    def _parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        parser = parser_of(self.about)
        known = ", ".join(map(repr, self.parts))
        parser.add_argument("parts", nargs="*", help=f"of {known}; by default all")
        parser.add_argument("--seeds", type=int, default=3, help="how many")
        parser.add_argument("--first-seed", type=int, default=0)
        parser.add_argument("--runs", nargs="+", help="some of them, by name")
        own = f"in place of each run's own number of {self.unit}"
        parser.add_argument(f"--{self.unit}", dest="steps", type=int, help=own)
        parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
        parser.add_argument("--picture", action="store_true", help="trained anew")
        options = parser.parse_args(arguments)
        for part in options.parts:
            if part not in self.parts:
                parser.error(f"unknown part {part!r}; there are {known}")
        return options
