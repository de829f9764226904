"""The benchmarks run and print one line for each thing they compare."""

import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from benchmarks.compiled_steps import measured
from benchmarks.programs import BY_HAND
from benchmarks.step_time import Timer

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("step_time", ["--networks", "digits", "--repeats", "1", "--no-validate"], 4),
        ("memory", ["--networks", "digits", "--draws", "100"], 10),
    ],
)
def test_benchmark_prints_its_table(name: str, options: list[str], rows: int) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--particles", "2"]
    run = subprocess.run(
        [*command, "--no-save"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("| digits |") == rows


def test_compiled_steps_are_timed_in_turns() -> None:
    timer, columns = Timer(torch.device("cpu"), "cpu"), ("by hand", "ours", "ours, graph")
    with pyro.settings.context(module_local_params=True):
        rows = dict(measured("digits", 2, timer, 2, columns))
    assert len(rows) == len(BY_HAND)
    for times in rows.values():
        assert set(times) == set(columns)
        assert all(len(each) == 2 and min(each) > 0 for each in times.values())
