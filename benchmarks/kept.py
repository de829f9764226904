"""Runs of a benchmark that are kept in a file: started again, it goes on with the others."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Run", "finished", "found", "keep", "outcome"]

Run = Mapping[str, Any]
"""What one run found, by the names of columns."""


def outcome(
    parts: Mapping[str, Any],
    path: Path | None,
    part: str,
    name: str,
    seed: int,
    steps: int | None,
    unit: str = "steps",
) -> Run:
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
    return found(path, key, lambda: parts[part].run(name, seed, steps))


def found(path: Path | None, key: str, run: Callable[[], Run]) -> Run:
    """What ``run()`` finds, now or before: kept in the file under ``key``."""
    if key not in (kept := finished(path)):
        kept = {key: run()}
        if path:
            keep(path, kept)
    return kept[key]


def keep(path: Path, runs: Mapping[str, Run]) -> None:
    """Add finished runs to those in the file; several processes may do so at a time."""
    with _alone(path.parent):
        kept = finished(path) | runs
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(run)}" for key, run in kept.items())
        whole = path.with_suffix(".new")
        whole.write_text(f"{{\n{lines}\n}}\n")
        whole.replace(path)


def finished(path: Path | None) -> dict[str, Run]:
    """The runs in the file, by key; none without a file."""
    return json.loads(path.read_text()) if path and path.is_file() else {}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
