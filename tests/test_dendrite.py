"""The dendritic model: against its formula and every train of a short window, in float64.

Tolerances of 1e-10 are rounding of sums over 256 and more trains.
"""

from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import DendriticSpikeGuide
from pyro_lvm.models import DendriticCalcium
from pyro_lvm.objectives import IWAE

pytestmark = pytest.mark.usefixtures("float64")

SPINES, FRAMES = 2, 3


def drawn(**options: object) -> DendriticCalcium:
    model = DendriticCalcium(30.0, num_spines=SPINES, num_frames=FRAMES, **options)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return model


def test_density_is_its_formula() -> None:
    model = drawn(drift=False, num_cells=4)
    sites = pyro.poutine.trace(model).get_trace(size=4)
    sites.compute_log_prob()
    s, u, x = (sites.nodes[name]["value"] for name in ("spikes", "synaptic", "x"))
    for b in range(4):
        log_p = dist.Bernoulli(1 - (-model.firing_rate[b] / 30).exp()).log_prob(s[b]).sum()
        for i in range(SPINES + 1):
            calcium, decay = torch.tensor(0.0), torch.exp(-1 / (30 * model.decay[b, i]))
            for t in range(FRAMES):
                calcium = decay * calcium + model.amplitude[b, i] * s[b, t]
                if i:
                    probability = 1 - (-model.synaptic_rate[b, i - 1] / 30).exp()
                    log_p += dist.Bernoulli(probability).log_prob(u[b, i - 1, t])
                    calcium = calcium + model.synaptic_amplitude[b, i - 1] * u[b, i - 1, t]
                noise = dist.Normal(model.baseline[b, i] + calcium, model.noise_scale[b, i])
                log_p += noise.log_prob(x[b, i, t])
        found = sum(sites.nodes[name]["log_prob"][b] for name in ("spikes", "synaptic", "x"))
        torch.testing.assert_close(found, log_p, rtol=0, atol=1e-10)


def every_train() -> tuple[Tensor, Tensor]:
    """All 512 pairs of a train and two inputs of three frames, as particles of one datum."""
    bits = torch.tensor(list(product((0.0, 1.0), repeat=FRAMES * (1 + SPINES))))
    bits = bits.unflatten(-1, (1, 1 + SPINES, FRAMES))
    return bits[..., 0, :], bits[..., 1:, :]


@pytest.mark.parametrize("source", ["action potential", "input of a spine"])
def test_what_all_traces_show_is_told_from_what_one_shows(source: str) -> None:
    model = DendriticCalcium(30.0, num_spines=SPINES, drift=False)
    model.noise_scale = torch.full((1, SPINES + 1), 0.05)
    s, u = every_train()
    shown = [1.0, 1.0, 1.0] if source == "action potential" else [0.0, 1.0, 0.0]
    x = 0.19 * torch.tensor([shown]).unsqueeze(-1) * torch.tensor([0.0, 1.0, 0.92])
    prior = model.prior(FRAMES)
    log_joint = prior["spikes"].log_prob(s) + prior["synaptic"].log_prob(u)
    posterior = (log_joint + model.decode(s, u).log_prob(x)).softmax(0)
    spike, inputs = (posterior * s[..., 1]).sum(), torch.einsum("nb,nbi->i", posterior, u[..., 1])
    if source == "action potential":
        assert spike > 0.99
        assert (inputs < 0.05).all()
    else:
        assert spike < 0.05
        assert inputs[0] > 0.9
        assert inputs[1] < 0.05


def test_drift_is_that_of_each_trace() -> None:
    model = drawn()
    x, s, u = torch.randn(5, SPINES + 1, FRAMES), torch.zeros(5, FRAMES), torch.zeros(5, 2, FRAMES)
    time = torch.arange(1, FRAMES + 1.0)
    exact = torch.zeros(5)
    for i in range(SPINES + 1):
        left = model.remnant_scale[0, i] * torch.exp(-time / (30 * model.decay[0, i]))
        covariance = model.noise_scale[0, i] ** 2 * torch.eye(FRAMES) + torch.outer(left, left)
        covariance = covariance + model.drift_scale[0, i] ** 2
        loc = model.baseline[0, i].expand(FRAMES)
        exact = exact + dist.MultivariateNormal(loc, covariance).log_prob(x[:, i])
    found = model.decode(s, u).log_prob(x)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("posterior", ["factorised", "relaxed"])
def test_both_trains_are_learnt(posterior: str) -> None:
    relaxed = posterior == "relaxed"
    model = DendriticCalcium(
        30.0, num_spines=2, num_frames=40, spikes="relaxed" if relaxed else "bernoulli"
    )
    guide = DendriticSpikeGuide(rate=30.0, posterior=posterior)
    x = model(size=4).detach()
    x[0, 1, 5:9] = torch.nan
    objective = IWAE(num_particles=4, gradient="reparam" if relaxed else "vimco")
    objective.differentiable_loss(model, guide, x).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_start_is_that_of_each_trace() -> None:
    model = DendriticCalcium(30.0, num_spines=2)
    noise = torch.tensor([[0.05], [0.1], [0.2]])
    model.start_at(noise * torch.randn(1, 3, 5000))
    error = 1.4 / 5000**0.5  # standard error of the median step, relative
    torch.testing.assert_close(model.noise_scale[0], noise[:, 0], rtol=4 * error, atol=0)


def test_wrong_dendrites() -> None:
    model = DendriticCalcium(30.0, num_spines=2)
    where = "x", "shape (batch, 3, frames >= 2)", "shape (4, 2, 40)", "Put frames last"
    with explained(DataError, *where):
        model(torch.zeros(4, 2, 40))
    with explained(ProgramError, "num_spines", "an integer >= 1", "0", "Check num_spines"):
        DendriticCalcium(30.0, num_spines=0)
