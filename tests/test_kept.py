"""Finished runs of a benchmark: kept once, by several processes at a time."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from benchmarks.kept import keep, outcome


def test_several_writers_lose_nothing(tmp_path) -> None:
    """Each has a handle of its own on the lock, as processes have."""
    path = tmp_path / "kept.json"

    def write(writer: int) -> None:
        for number in range(10):
            keep(path, {f"{writer} {number}": {"NLL": float(number)}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    kept = json.loads(path.read_text())
    assert kept == {f"{w} {n}": {"NLL": float(n)} for w in range(8) for n in range(10)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_run_is_not_run_again(tmp_path) -> None:
    path, seen = tmp_path / "kept.json", []

    def run(name: str, seed: int, steps: int | None) -> dict[str, float]:
        seen.append((name, seed, steps))
        return {"NLL": 2.0}

    parts = {"part": SimpleNamespace(run=run)}
    for steps in (None, 5, None, 5):
        assert outcome(parts, path, "part", "row", 1, steps) == {"NLL": 2.0}
    assert seen == [("row", 1, None), ("row", 1, 5)]
    assert set(json.loads(path.read_text())) == {"part: row, seed 1", "part: row, seed 1, 5 steps"}
    assert outcome(parts, None, "part", "row", 1, None) == {"NLL": 2.0}
    assert len(seen) == 3
