"""The judge of priors on MNIST agrees with the objectives, and its programs fit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import mnist_priors, semi_implicit
from benchmarks.mnist_priors import components, log_mixture, log_weights, programs
from pyro_lvm.distributions import VampPrior
from pyro_lvm.objectives import DSIVI, IWAE

MAX_Z = 5.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEATURES": 6, "LATENTS": 2, "HIDDEN": (5,), "COUNT": 8}.items():
        monkeypatch.setattr(mnist_priors, name, value)


def rows() -> Tensor:
    return torch.rand(40, 6)


def test_density_of_a_mixture() -> None:
    model, *_ = programs("VampPrior", rows())
    z = torch.randn(7, 3, 2)
    found = log_mixture(z, *components(model, 0))
    torch.testing.assert_close(found.float(), model.prior().log_prob(z))


def test_one_standard_normal() -> None:
    model, *_ = programs("N(0, I)", rows())
    z = torch.randn(7, 3, 2)
    found = log_mixture(z, *components(model, 0))
    torch.testing.assert_close(found.float(), torch.distributions.Normal(0, 1).log_prob(z).sum(-1))


@pytest.mark.parametrize("name", mnist_priors.RUNS)
def test_evaluation_is_the_objectives(name: str) -> None:
    """Means over draws, for the semi-implicit ones of the prior too."""
    torch.manual_seed(0)
    model, guide, _ = programs(name, rows())
    x = torch.rand(3, 6).round()
    implicit = name.startswith("DSIVI")
    objective = DSIVI(500, num_mixing=0, num_prior_mixing=8) if implicit else IWAE(500)
    ours, theirs = [], []
    for _ in range(20):
        ours.append(log_weights(model, guide, x, components(model, 8)).mean(0))
        theirs.append(objective.log_weights(model, guide, x).mean(0).double())
    first, second = torch.stack(ours), torch.stack(theirs)
    error = ((first.var(0) + second.var(0)) / 20).sqrt()
    assert ((first.mean(0) - second.mean(0)).abs() < MAX_Z * error).all()
    assert (error < 0.2).all()


def test_pseudo_inputs_that_are_data_are_not_trained_on() -> None:
    train = rows()
    model, _, others = programs("VampPrior-data", train)
    assert isinstance(model.prior, VampPrior)
    assert len(others) == len(train) - 8
    assert not (others[:, None] == model.prior.inputs).all(-1).any()
    for name in mnist_priors.RUNS:
        if name != "VampPrior-data":
            assert programs(name, train)[2] is train


@pytest.mark.parametrize("name", mnist_priors.RUNS)
def test_runs_are_kept(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Splits:
        train = test = torch.rand(40, 6).round()
        transform = None

    monkeypatch.setattr(mnist_priors, "data", Splits)
    found = semi_implicit.SUITE.outcome(tmp_path / "kept.json", "mnist", name, 0, 2)
    labels = [" (250 prior draws)", " (5000 prior draws)"] if name[0] == "D" else [""]
    assert set(found) == {what + by for what in ("log p(x)", "ELBO") for by in labels}
    assert all(found[f"log p(x){by}"] >= found[f"ELBO{by}"] for by in labels)
