"""The benchmark of evidence: its mixture knows its own, and every method gets a row."""

import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from benchmarks.evidence import RUNS
from benchmarks.evidence_models import mixture
from pyro_lvm.diagnostics import log_evidence

ROOT = Path(__file__).parents[1]


def test_the_evidence_of_the_mixture(float64: torch.dtype) -> None:
    """Within four standard errors of a guide that covers both modes."""
    pyro.set_rng_seed(1)
    case = mixture(20)
    found = log_evidence(case.model, case.guides["wide guide"], case.x, num_samples=20_000)
    assert ((found.value - case.exact) / found.standard_error).abs().max() < 4
    assert found.standard_error.max() < 0.05
    sites = pyro.poutine.trace(case.model).get_trace(case.x).nodes
    assert sites["z"]["value"].shape == case.z.shape


@pytest.mark.slow
def test_every_method_gets_a_row() -> None:
    command = [sys.executable, "-m", "benchmarks.evidence", "--seeds", "1", "--num-data", "2"]
    run = subprocess.run(
        [*command, "--no-save"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == len(RUNS) + 2
