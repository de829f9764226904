"""The chains of annealing: unbiased weights, invariant moves, and chunks that bound the memory."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import ais, bimodal, bimodal_evidence
from torch import Tensor

from pyro_lvm.data import load
from pyro_lvm.diagnostics import AIS, log_evidence
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.hmc import Point, transition
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.training import fit

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(12, 2) @ oracle.loading.T + torch.randn(12, 4) * oracle.noise


def bimodal_guide(x: Tensor) -> None:
    """Sees one mode only, and a little of the other."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5, 0.7))


@pytest.mark.parametrize("initial", ["prior", "guide"])
def test_weights_are_unbiased_and_their_log_is_a_lower_bound(initial: str) -> None:
    """Few temperatures and short moves: noisy weights, whose mean is p(x) all the same."""
    x = torch.tensor([1.5])
    chains = Chains(AIS(4, 2, initial), bimodal, bimodal_guide, (x,), {}, 40_000)
    log_ratio = torch.cat(list(chains)) - bimodal_evidence(x)
    ratio = log_ratio.exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.03, "a tenth of the bias below"
    assert abs(ratio.mean() - 1) < 4 * error
    assert log_ratio.mean() < -0.3, "noisy enough for a bias to show"


def test_transitions_leave_the_target_invariant() -> None:
    """Draws of a tempered Normal stay draws of it, whatever the step size."""

    def path(z: Tensor) -> Point:
        start, joint = -z.square().sum(-1) / 2, -(z - 3).square().sum(-1) / 0.5
        return Point(z, start, joint, -z, -4 * (z - 3))

    precision = 0.5 * 1 + 0.5 * 4
    mean = 0.5 * 4 * 3 / precision
    point = path(mean + torch.randn(40_000, 2) / precision**0.5)
    for _ in range(3):
        point, accepted = transition(path, point, 0.5, torch.tensor([0.9, 0.0]), 3)
    assert 0.3 < accepted.mean() < 0.95, "the test of acceptance matters"
    z = (point.position - mean) * precision**0.5
    assert (z.mean(0).abs() < 4 / 200).all()
    assert ((z.var(0) - 1).abs() < 4 * 2**0.5 / 200).all()


def test_moves_into_no_density_are_rejected() -> None:
    def path(z: Tensor) -> Point:
        log_density = torch.where(z < 0, torch.nan, -z).sum(-1)
        return Point(z, log_density, log_density, -torch.ones_like(z), -torch.ones_like(z))

    point = path(torch.ones(1000, 1))
    for _ in range(20):
        point, accepted = transition(path, point, 0.5, torch.tensor(1.0), 3)
        assert accepted.isfinite().all()
    assert (point.position >= 0).all()
    assert point.log_joint.isfinite().all()


def test_pilot_reaches_the_wanted_acceptance(
    oracle: LinearGaussian, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def spy(*args: Any) -> tuple[Point, Tensor]:
        result = transition(*args)
        rates.append(result[1].mean())
        return result

    monkeypatch.setattr("pyro_lvm.diagnostics.annealed_chains.transition", spy)
    log_evidence(oracle.model, None, x, num_samples=20, method=AIS(100, 5))
    assert 0.5 < torch.stack(rates[-99:]).mean() < 0.8


def test_agrees_with_importance_sampling_on_digits(device: torch.device) -> None:
    torch.set_default_dtype(torch.float32)
    data = load("digits")
    train, test = ((part.flatten(1) > 0.5).float() for part in (data.train, data.test))
    model = VAE(64, 3, hidden=(32,))
    guide = AmortizedNormal(in_features=64, latent_features=3, hidden=(32,))
    fit(model, guide, train, IWAE(5), max_steps=150, progress=False, diagnostic_particles=0)
    x = test[:20].to(device)
    weighted = log_evidence(model, guide, x, num_samples=5000)
    annealed = ais(model, x, num_samples=32, options=AIS(100, 5))
    assert annealed.value.dtype == torch.float32
    error = (weighted.standard_error.square() + annealed.standard_error.square()).sqrt()
    assert (((annealed.value - weighted.value) / error).abs() < 4).all()
    assert annealed.standard_error.square().sum().sqrt() / 20 < 0.05, "of the mean over digits"


def test_defaults_and_chunks(
    oracle: LinearGaussian, x: Tensor, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(AIS, "betas", lambda self: [0.0, 0.5, 1.0])
    largest = 0

    def model(x: Tensor) -> None:
        nonlocal largest
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            largest = max(largest, len(z) if z.dim() == 3 else 1)
            mean = z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x)

    estimate = log_evidence(model, None, x, method="ais", chunk_size=5)
    assert estimate.num_samples == 32
    assert largest == 5
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.abs().max() < 5
    assert capfd.readouterr().err == "", "no progress bar without a terminal"


def test_default_chunks_bound_the_memory(oracle: LinearGaussian, x: Tensor) -> None:
    sizes = [
        Chains(AIS(1), oracle.model, None, (x.repeat(n, 1),), {}, 1).chunk_size for n in (1, 100)
    ]
    assert sizes[0] > 50 * sizes[1] > 0
