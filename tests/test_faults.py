"""Planted faults: each is caught by the diagnostics that should, and exact guides pass."""

import json

import pytest
import torch

from benchmarks import faults
from benchmarks.faults import DIAGNOSTICS, PARTS, SIMULATED, outcomes, table
from benchmarks.faults_planted import EXACT, FAULTS
from pyro_lvm.diagnostics import log_evidence

# Those that must catch it with 500 simulations and 100 data.
CATCHERS = {
    "narrow": {*SIMULATED, "gap"},
    "wide": {*SIMULATED, "gap"},
    "biased": {"ranks of latents", "gap"},
    "mode": {"ranks of latents", "coverage", "TARP"},
    "mean-field": {"ranks of latents", "ranks of densities", "coverage", "gap"},
    "margins": {"ranks of densities", "gap"},
    "undertrained": {"ranks of densities", "coverage", "gap"},
    "scale": {"ranks of latents", "coverage", "gap"},
    "collapsed": {"ranks of densities", "collapse", "gap"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_caught(name) -> None:
    (found,) = outcomes(None, name, FAULTS[name], range(10, 11))
    assert found.keys() == set(DIAGNOSTICS)
    assert {diagnostic for diagnostic in CATCHERS[name] if not found[diagnostic]} == set()


@pytest.mark.parametrize("name", EXACT)
def test_exact_guides_pass(name) -> None:
    (found,) = outcomes(None, name, EXACT[name], range(10, 11))
    assert not any(found.values())


@pytest.mark.parametrize("name", EXACT)
def test_exact_guides_are_exact(name) -> None:
    """Every draw has the weight p(x)."""
    torch.manual_seed(0)
    case = EXACT[name]
    found = log_evidence(case.model, case.guide(), case.data(), num_samples=50)
    assert found.standard_error.max() < 1e-3  # float32


def test_finished_runs_are_kept_and_counted(tmp_path, monkeypatch) -> None:
    seeds = []

    def pretended(planted, part, seed):
        seeds.append(seed)
        return dict.fromkeys(DIAGNOSTICS, seed == 1) | {"collapse": None}

    monkeypatch.setattr(faults, "run", pretended)
    path = tmp_path / "faults.json"
    outcomes(path, "narrow", FAULTS["narrow"], range(2))
    found = outcomes(path, "narrow", FAULTS["narrow"], range(3))
    assert seeds == [seed for seed in range(3) for _ in PARTS]
    assert len(json.loads(path.read_text())) == 3 * len(PARTS)
    line = table(FAULTS, {"narrow": found}).splitlines()[-1]
    assert line.count("| 1/3 ") == len(DIAGNOSTICS) - 1
    exact = table(EXACT, {"linear": found}, interval=True).splitlines()[-1]
    assert "1/3 (0.008 to 0.906)" in exact  # Clopper and Pearson
