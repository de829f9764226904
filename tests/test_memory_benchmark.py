"""The benchmark of memory in chunks, on programs of a few numbers."""

import pyro

from benchmarks.memory_chunks import measure
from benchmarks.programs import Sizes


def test_chunks_are_measured_beside_all_at_once() -> None:
    with pyro.settings.context(module_local_params=True):
        rows = {row.step: row for row in measure(Sizes(20, (30, 30), 5, 10), 200, "graph")}
    for step in ("IWAE reparam, K", "IWAE dreg, K", "SIVI reparam, J"):
        one, many, whole = (
            rows[f"{step} = {count}"] for count in ("50", "200, 50 at a time", "200")
        )
        assert all(len(row.held) == len(row.peak) == 3 for row in (one, many, whole))
        assert min(many.peak) < 1.5 * max(one.peak) < min(whole.peak)
        assert max(many.held) < min(one.held) < min(whole.held)
        assert all(len(row.time) == 5 and min(row.time) > 0 for row in (one, many))
        assert whole.time == [1.0] * 5
    for gradient in ("reparam", "dreg"):
        step = f"IWAE {gradient}, K = 200, 50 at a time"
        assert max(rows[f"{step}, compiled"].peak) < 1.1 * min(rows[step].peak)
