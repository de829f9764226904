"""All that runs on the CPU runs where model, guide and data are on another device.

It is the device asked for, or a simulated one, which torch must know before its first backward
pass: hence a process of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import simulated_device
import torch

CASES = sorted(Path(__file__).parent.glob("second_device_*.py"))


@pytest.mark.skipif(not simulated_device.can_register(), reason="this torch has no such device")
def test_all_runs_on_a_second_device(device: torch.device) -> None:
    name = simulated_device.NAME if device.type == "cpu" else str(device)
    command = [sys.executable, "-m", "pytest", "-q", "--device", name, "-p", "no:cacheprovider"]
    run = subprocess.run([*command, *CASES], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-10_000:]
