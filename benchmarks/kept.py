"""Runs of a benchmark that are kept in a file: started again, it goes on with the others."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["keep", "outcome"]


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
        kept = {key: parts[part].run(name, seed, steps)}
        if path:
            keep(path, kept)
    return kept[key]


def keep(path: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    """Add finished runs to those in the file; several processes may do so at a time."""
    with _alone(path.parent):
        kept = _read(path) | found
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(kept, indent=1) + "\n")
        whole.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path | None) -> dict[str, Mapping[str, float]]:
    return json.loads(path.read_text()) if path and path.is_file() else {}
