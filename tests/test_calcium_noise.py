"""Noise and drift of calcium imaging: against dense Normals, in float64, with frames missing.

Relative tolerances of 1e-10 are rounding.
"""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from calcium_models import each_model, total

from pyro_lvm.models import LinearCalcium

pytestmark = pytest.mark.usefixtures("float64")
each_noise = pytest.mark.parametrize("drift", [True, False], ids=["drift", "white"])


def test_drift_is_the_dense_normal() -> None:
    model = LinearCalcium(30.0, drift_period=2.0)
    x, spikes = torch.randn(3, 100), (torch.rand(4, 3, 100) < 0.05).double()
    time = (torch.arange(100.0) + 0.5) / 100
    waves = [torch.ones(100), *(2**0.5 * torch.cos(torch.pi * k * time) for k in (1, 2, 3))]
    drift = model.drift_scale / 2 * torch.stack(waves, -1)
    left = model.remnant_scale * torch.exp(-torch.arange(1, 101.0) / (30 * model.decay))
    columns = torch.cat([drift, left[:, None]], -1)
    covariance = model.noise_scale**2 * torch.eye(100) + columns @ columns.T
    exact = dist.MultivariateNormal(model.fluorescence(spikes), covariance).log_prob(x)
    found = model.decode(spikes).log_prob(x)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=0)


@each_noise
def test_denoised_traces_follow_the_drift(drift: bool) -> None:
    model = LinearCalcium(30.0, drift=drift)
    spikes = model.prior(3000)["spikes"].sample()
    slow = 0.05 * torch.cos(torch.arange(3000.0) / 300)
    x = model.fluorescence(spikes) + slow + 0.1 * torch.randn(1, 3000)
    x[:, 500:600] = torch.nan
    error = (model.denoised(x, spikes) - model.fluorescence(spikes) - slow).std()
    assert (error < 0.015) if drift else (error > 0.03)


@each_noise
@each_model
def test_gradients_are_finite_on_the_worst_of_traces(make: Any, drift: bool) -> None:
    """No spikes (a power of 0), constant traces, frames missing, rows that are missing."""
    model = make(30.0, num_cells=4, drift=drift)
    x = 0.1 * torch.randn(4, 40)
    x[0], x[1], x[2, 5:9] = torch.nan, 0.3, torch.nan
    spikes = torch.zeros(4, 40, requires_grad=True)
    leaves = [spikes, *model.parameters()]
    gradients = torch.autograd.grad(total(model, x, spikes), leaves, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@each_noise
@each_model
def test_missing_frames_are_left_out(make: Any, drift: bool) -> None:
    model = make(30.0, drift=drift)
    x, spikes = torch.randn(2, 40), (torch.rand(2, 40) < 0.1).double()
    observed = torch.rand(2, 40) < 0.7
    seen = model.decode(spikes, observed=observed).log_prob(torch.where(observed, x, 9.0))
    hidden = total(model, torch.where(observed, x, torch.nan), spikes)
    prior = model.prior(40)["spikes"].log_prob(spikes)
    torch.testing.assert_close(hidden, (seen + prior).sum())
    assert not torch.equal(hidden, total(model, x, spikes))


@each_noise
def test_growing_noise_is_its_formula(drift: bool) -> None:
    model = LinearCalcium(30.0, noise="growing", drift=drift)
    x, spikes = torch.randn(3, 60), (torch.rand(4, 3, 60) < 0.1).double()
    observed = torch.rand(3, 60) < 0.8
    loc, found = model.fluorescence(spikes), model.decode(spikes, observed=observed).log_prob(x)
    scale = (model.noise_scale**2 + (model.noise_gain * model.response(spikes)) ** 2).sqrt()
    slow = model._slow_columns(60, None)[0] if drift else torch.zeros(60, 1)
    covariance = torch.diag_embed(scale**2) + slow @ slow.T
    for row, seen in enumerate(observed):
        dense = covariance[:, row][:, seen][:, :, seen]
        exact = dist.MultivariateNormal(loc[:, row, seen], dense).log_prob(x[row, seen])
        torch.testing.assert_close(found[:, row], exact, rtol=1e-10, atol=0)


def test_constant_traces_have_a_bounded_density() -> None:
    """The noise has a floor, so learning from a constant trace does not diverge."""
    model = LinearCalcium(30.0, drift=False)
    model.noise_scale_unconstrained.data.fill_(-50.0)
    torch.testing.assert_close(model.noise_scale, torch.tensor([1e-3]))
    assert model.decode(torch.zeros(1, 50)).log_prob(torch.zeros(1, 50)).isfinite().all()


def test_particles_share_the_factor_of_a_row() -> None:
    noise = LinearCalcium(30.0).decode(torch.zeros(64, 5, 40))
    assert noise.batch_shape == (64, 5)
    assert noise.columns.shape[:-2] == (1,)
