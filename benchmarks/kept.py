"""Runs of a benchmark that are kept in a file: started again, it goes on with the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["outcome"]


def outcome(
    parts: Mapping[str, Any],
    path: Path | None,
    part: str,
    name: str,
    seed: int,
    steps: int | None,
    unit: str = "steps",
) -> Mapping[str, float]:
    """What ``parts[part].run(name, seed, steps)`` found, now or before.

    Args:
        parts: modules with a ``run``, by name.
        path: the file of finished runs; None to keep nothing.
        part: which of them.
        name: of the run.
        seed: of its random numbers.
        steps: in place of the run's own number,
        unit: of these.
    """
    key = f"{part}: {name}, seed {seed}" + (f", {steps} {unit}" if steps else "")
    if key not in (kept := _read(path)):
        found = parts[part].run(name, seed, steps)
        kept = _read(path) | {key: found}  # anew: another process may have written meanwhile
        if path:
            path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept[key]


def _read(path: Path | None) -> dict[str, Mapping[str, float]]:
    return json.loads(path.read_text()) if path and path.is_file() else {}
