"""The linear model of nine frames, whose 512 trains are enumerated, in float64.

Absolute tolerances of 1e-10 are rounding: sums of some hundred terms of size 1 to 100.
"""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from calcium_window import draw_window, exact_window, factorised_elbo, trains, window_model
from explained import explained
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.models import LinearCalcium
from pyro_lvm.models.spike_enumeration import enumerate_spikes
from pyro_lvm.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")


def test_window_has_the_exact_evidence_and_posterior() -> None:
    model = window_model()
    x, _ = draw_window(20)
    log_p, mean, every, log_posterior = exact_window(x)
    found = enumerate_spikes(model, x)
    assert torch.equal(found.trains, every)
    torch.testing.assert_close(found.log_evidence, log_p, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_posterior, log_posterior, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-10)


def test_window_posterior_has_the_published_correlations() -> None:
    x, spikes = draw_window(2000)
    found = enumerate_spikes(window_model(), x)
    with_truth = torch.stack([found.mean.flatten(), spikes.flatten()]).corrcoef()[0, 1]
    groups = torch.stack([found.mean, spikes]).unflatten(1, (20, 100)).movedim(1, 0).flatten(2)
    error = torch.stack([group.corrcoef()[0, 1] for group in groups]).std() / 20**0.5
    assert abs(with_truth - 0.816) < 4 * error
    assert error < 0.01 * 0.816
    neighbours = found.covariance.diagonal(1, -2, -1).mean(-1)  # of each window
    error = neighbours.std() / len(x) ** 0.5
    assert abs(neighbours.mean() + 0.0104) < 4 * error
    assert error < 0.1 * 0.0104


def test_missing_frames_are_summed_out() -> None:
    """The evidence of eight frames is that of nine, integrated over the last."""
    model = window_model()
    x, _ = draw_window(3)
    grid = torch.linspace(-2.0, 4.0, 601)
    last = torch.cat([x[:, None, :8].expand(-1, 601, -1), grid.expand(3, -1)[..., None]], -1)
    whole = enumerate_spikes(model, last.flatten(0, 1)).log_evidence.unflatten(0, (3, 601))
    integral = whole.logsumexp(-1) + log(6.0 / 600)
    x[:, 8] = torch.nan
    found = enumerate_spikes(model, x).log_evidence
    # The rule on equal steps is exact for analytic functions but for the tails left out, 1e-12.
    torch.testing.assert_close(found, integral, rtol=0, atol=1e-9)


def test_factorised_elbo_in_closed_form() -> None:
    x, _ = draw_window(5)
    p = torch.rand(5, 9)
    every = enumerate_spikes(window_model(), x)
    log_q = dist.Bernoulli(p.unsqueeze(1)).log_prob(trains(x)).sum(-1)
    log_joint = every.log_posterior + every.log_evidence.unsqueeze(-1)
    exact = (log_q.exp() * (log_joint - log_q)).sum(-1)
    torch.testing.assert_close(factorised_elbo(x, p), exact, rtol=0, atol=1e-10)


def test_elbo_of_the_program_is_the_closed_form() -> None:
    x, _ = draw_window(5)
    p = 0.2 * torch.rand(5, 9)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("spikes", dist.Bernoulli(p).to_event(1))

    draws = ELBO(20_000).log_weights(window_model(), guide, x)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - factorised_elbo(x, p)).abs() < 4 * error).all()
    assert (error < 0.5).all()


def test_enumeration_is_of_short_traces_of_bernoulli_spikes() -> None:
    with explained(DataError, "x", "at most 16 frames", "17", "Cut a window"):
        enumerate_spikes(LinearCalcium(30.0), torch.zeros(1, 17))
    with explained(ProgramError, "model", "Bernoulli spikes", "relaxed", "spikes='bernoulli'"):
        enumerate_spikes(LinearCalcium(30.0, spikes="relaxed"), torch.zeros(1, 9))
