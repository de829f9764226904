"""The judges of the benchmark of Bayesian networks are right, and the script prints its tables."""

import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from pyro.distributions import Normal

from benchmarks.bayesian_nets import PARTS
from benchmarks.bayesian_regression import RUNS, run, scores
from benchmarks.sparse_networks import Density
from pyro_lvm.models import BayesianMLP

ROOT = Path(__file__).parents[1]


def test_scores_of_one_draw_are_those_of_its_normal() -> None:
    """Outcomes at even ranks of the predictions: nothing is left to calibrate."""
    model, size = BayesianMLP(2, ()), 200
    draws = {"w1": torch.zeros(1, 3), "log_noise": torch.full((1, 1), -0.5)}
    law = Normal(0.0, torch.tensor(-0.5).exp())
    y = law.icdf((torch.arange(size) + 0.5) / size)
    found = scores(model, draws, torch.randn(size, 2), y)
    assert found["log p"] == pytest.approx(law.log_prob(y).mean().item(), abs=1e-5)
    assert found["RMSE"] == pytest.approx(y.square().mean().sqrt().item(), abs=1e-5)
    assert found["coverage of 90 %"] == pytest.approx(0.9, abs=1e-6)
    assert found["ranks"] == pytest.approx(0.0, abs=1e-5)


def test_density_is_the_joint_one() -> None:
    model = BayesianMLP(2, (), noise_scale=0.5)
    w, x, y = torch.randn(3), torch.randn(4, 2), torch.randn(4)
    found = Density(model, torch.nn.ParameterDict({"w1": w}))(x, y)
    outcome = Normal(x @ w[:2] + w[2], 0.5).log_prob(y).sum()
    expected = -(Normal(0.0, 1.0).log_prob(w).sum() + outcome)
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("NUTS", "ensemble of 5")])
def test_every_contender_runs(name: str) -> None:
    with pyro.settings.context(module_local_params=True):
        found = run(name, seed=0, steps=4)
    assert 0 <= found["coverage of 90 %"] <= 1
    assert ("acceptance" in found) == (name != "point estimate")


@pytest.mark.slow
def test_script_prints_a_table() -> None:
    command = "-m benchmarks.bayesian_nets regression --steps 4 --seeds 0 --no-save --runs ELBO"
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "## regression" in done.stdout
    assert "| ELBO |" in done.stdout
    assert set(PARTS) == {"regression", "sparse"}
