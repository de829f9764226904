"""The judges of the acceptance benchmarks are right, and their runs give their columns."""

from typing import Any

import pyro
import pytest
import torch

from benchmarks import acceptance_proposals, acceptance_samplers, acceptance_samples, posteriordb
from benchmarks.acceptance import SUITE
from benchmarks.acceptance_families import Flow, Mixture
from benchmarks.acceptance_targets import TARGETS, scores
from benchmarks.posteriors import POSTERIORS, gaussian_process

GRID = torch.cartesian_prod(torch.linspace(-8, 8, 801), torch.linspace(-8, 8, 801))


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_normalised_and_drawn_from(name: str) -> None:
    mass = TARGETS[name].log_prob(GRID).exp() * 0.02**2
    assert abs(mass.sum() - 1) < 1e-3
    torch.manual_seed(0)
    z = TARGETS[name].sample((20_000,))
    second = (mass[:, None] * GRID.square()).sum(0)
    error = z.square().std(0) / 20_000**0.5
    assert ((z.square().mean(0) - second).abs() < 4 * error).all()


@pytest.mark.parametrize("family", [Flow, Mixture])
def test_proposals_are_normalised_and_drawn_from(family: Any) -> None:
    torch.manual_seed(0)
    guide = family()
    q = pyro.poutine.trace(guide).get_trace().nodes["z"]["fn"]
    mass, z = q.log_prob(GRID).exp() * 0.02**2, q.rsample((20_000,))
    for edge in (1.0, 2.0, 7.99):
        share = (z.abs() < edge).all(-1).float().mean()
        assert abs(mass[(GRID.abs() < edge).all(-1)].sum() - share) < 4 * 0.5 / 20_000**0.5


def test_exact_draws_are_worth_their_number_and_chains_in_one_mode_nothing() -> None:
    torch.manual_seed(0)
    exact = scores("mog2", TARGETS["mog2"].sample((8, 1000)))
    assert exact["ESS per 1000"] > 900
    assert exact["total variation"] < 0.03
    stuck = TARGETS["mog2"].sample((8, 1000))
    stuck[..., 0] = stuck[..., 0].abs()
    found = scores("mog2", stuck)
    assert found["ESS per 1000"] < 2, "although they agree with each other"
    assert found["bulk ESS per 1000"] > 900
    assert found["total variation"] == pytest.approx(0.5, abs=0.03)
    assert found["share of the right mode"] == 1


def test_runs_give_their_columns() -> None:
    for name in ("mog2, acceptance", "mog2, acceptance of a mixture", "ring, reverse KL"):
        pyro.clear_param_store()
        found = acceptance_proposals.run(name, 0, steps=2)
        assert {"acceptance", "ESS per 1000", "ESS per second", "training, seconds"} <= set(found)
        assert found["training, gradients of the target"] == 2 * 2 * acceptance_proposals.DRAWS
    for name in ("ring, NUTS", "ring, HMC", "ring, random walk"):
        found = acceptance_samplers.run(name, 0, steps=5)
        assert 0 <= found["acceptance"] <= 1
        assert found["gradients a draw"] > 0
    found = acceptance_samples.run("exact ratio", 0)
    assert found["weights, total variation"] < 0.05
    assert set(acceptance_samples.run("300 samples", 0, steps=2)) >= {"near a mode"}
    assert {run for part in SUITE.parts.values() for run in part.RUNS} >= {"mog6, symmetric KL"}


# Eleven points of posteriordb's gp_pois_regr, and its moments by quadrature on a grid of 370 000.

X = [-10.0, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
Y = [
    4.75906,
    1.59423,
    2.99548,
    5.27501,
    1.66472,
    2.24347,
    2.8914,
    4.08681,
    4.60588,
    0.802364,
    3.92136,
]
MEAN = {"rho": 6.893, "alpha": 2.438, "sigma": 1.832}
DEVIATION = {"rho": 1.290, "alpha": 0.790, "sigma": 0.500}


@pytest.mark.usefixtures("float64")
def test_corrected_draws_have_the_moments_of_a_real_posterior(monkeypatch: Any) -> None:
    monkeypatch.setattr(posteriordb, "NUM_SAMPLES", 8000)
    torch.manual_seed(0)
    posterior = gaussian_process({"x": X, "y": Y})
    guide = posteriordb.started(posterior)
    container = posteriordb.drawn(posterior, guide, "mh", seed=0)
    named = posterior.named(posteriordb.sampled(container))
    assert container.attrs["acceptance_mean"] > 0.5
    known = {n: {"mean": MEAN[n], "sd": DEVIATION[n], "mcse_mean": 0.001} for n in MEAN}
    found = posteriordb.errors(known, named)
    assert found["mean, z"] < 4
    assert found["sd, z"] < 4
    uncorrected = posteriordb.sampled(posteriordb.drawn(posterior, guide, None, seed=0))
    assert posteriordb.errors(known, posterior.named(uncorrected))["mean, z"] > 4


def test_every_posterior_has_its_runs() -> None:
    assert len(posteriordb.RUNS) == len(POSTERIORS) * len(posteriordb.OBJECTIVES)
