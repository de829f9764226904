"""All that runs on the CPU runs where model, guide and data are on another device.

It is the device asked for, or a simulated one, which torch must know before its first backward
pass: hence a process of its own.
"""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import second_device_programs
import second_device_results
import simulated_device
import test_guides
import torch
from test_compiled_objectives import KEEPING

from pyro_lvm import diagnostics, mcmc
from pyro_lvm.models import BayesianLinearRegression
from pyro_lvm.testing import discover

CASES = sorted(Path(__file__).parent.glob("second_device_*.py"))


@pytest.mark.skipif(not simulated_device.can_register(), reason="this torch has no such device")
def test_all_runs_on_a_second_device(device: torch.device) -> None:
    name = simulated_device.NAME if device.type == "cpu" else str(device)
    command = [sys.executable, "-m", "pytest", "-q", "--device", name, "-p", "no:cacheprovider"]
    run = subprocess.run([*command, *CASES], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-10_000:]


# Nothing is left out. Objectives are those of tests/test_compiled_objectives.py, where one that is
# missing fails.


def test_every_model_and_guide_is_among_the_cases() -> None:
    variants = {**second_device_programs.MODELS, **test_guides.VARIANTS}
    programs = [make() for make in variants.values()]
    for make in second_device_programs.OTHERS.values():
        programs += make()[1:3]
    for _, pair in KEEPING.values():
        programs += pair()
    found = {type(part) for program in programs for part in program.modules()}
    needed = {*discover("pyro_lvm.models"), *discover("pyro_lvm.guides")}
    assert needed - found == {BayesianLinearRegression}, "its exact answers have a test"


def takes_programs(made: Any) -> bool:
    """A function or a kernel of a model and a guide, or settings of one, which have defaults."""
    if not callable(made) or (isinstance(made, type) and issubclass(made, Exception)):
        return False
    parameters = inspect.signature(made).parameters
    is_left = [parameter.default is not parameter.empty for parameter in parameters.values()]
    return {"model", "guide"} <= parameters.keys() or all(is_left)


def test_every_diagnostic_and_kernel_is_among_the_entries() -> None:
    public = {
        name: getattr(module, name) for module in (diagnostics, mcmc) for name in module.__all__
    }
    needed = {name for name, made in public.items() if takes_programs(made)}
    entered = {word for entry in second_device_results.ENTRIES for word in entry.split()}
    assert needed - entered == {"Case", "report"}, "report has a test of its own, which makes one"
