"""Recorded steps in several processes against the programs' own in one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes_job import CASES, SHARED, adam, trained

JOB = Path(__file__).with_name("compiled_job.py")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, each with half of a batch; a warning would end them."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONWARNINGS": "error:compile:UserWarning"}
    subprocess.run([*command, str(JOB), str(folder)], check=True, timeout=300, env=environment)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", [*CASES, "inductor"])
def test_two_processes_do_what_one_does(case: str, by_two: list[dict[str, Any]]) -> None:
    check_same(by_two, case, trained("ELBO" if case == "inductor" else case))


def test_the_state_of_an_optimizer_is_shared_out(by_two: list[dict[str, Any]]) -> None:
    check_same(by_two, "ZeRO", trained("ELBO", optimizer=adam, **SHARED))


def check_same(by_two: list[dict[str, Any]], case: str, one: dict[str, Any]) -> None:
    for two in by_two:
        torch.testing.assert_close(two[case]["loss"], one["loss"], rtol=1e-12, atol=0)
        torch.testing.assert_close(two[case]["parameters"], one["parameters"])
