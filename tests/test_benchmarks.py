"""The benchmarks run and print one line for each thing they compare."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("step_time", ["--networks", "digits", "--repeats", "1", "--no-validate"], 4),
        ("memory", ["--networks", "digits"], 10),
    ],
)
def test_benchmark_prints_its_table(name: str, options: list[str], rows: int) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--particles", "2"]
    run = subprocess.run(
        [*command, "--no-save"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("| digits |") == rows
