"""Models of calcium imaging: against enumeration, formulas and dense Normals, in float64.

Absolute tolerances of 1e-10 and below are rounding: sums of some hundred terms of size 1 to 100.
"""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from calcium_window import draw_window, exact_window, factorised_elbo, trains, window_model
from explained import explained
from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.models import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.calcium_dynamics import linear_recurrence, relaxation
from pyro_lvm.models.calcium_simulation import draw_cells, record
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.models.spike_enumeration import enumerate_spikes
from pyro_lvm.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

MODELS: dict[str, Callable[..., FluorescenceModel]] = {
    "linear": LinearCalcium,
    "rising": partial(LinearCalcium, rise=True),
    "saturating": SaturatingCalcium,
    "physiological": PhysiologicalCalcium,
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
each_noise = pytest.mark.parametrize("drift", [True, False], ids=["drift", "white"])


def one_spike(num_frames: int, count: float = 1.0) -> Tensor:
    return torch.nn.functional.pad(torch.full((1, 1), count), (0, num_frames - 1))


def total(model: FluorescenceModel, x: Tensor, spikes: Tensor, cell: Any = None) -> Tensor:
    """log p(x, spikes) of all traces, nats."""
    given = pyro.poutine.condition(model, {"spikes": spikes})
    return pyro.poutine.trace(given).get_trace(x, cell).log_prob_sum()


# The linear model of nine frames, whose 512 trains are enumerated.


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
    x, spikes = draw_window(2000, torch.Generator().manual_seed(0))
    found = enumerate_spikes(window_model(), x)
    with_truth = torch.stack([found.mean.flatten(), spikes.flatten()]).corrcoef()[0, 1]
    assert abs(with_truth - 0.816) < 0.01  # standard error 0.0025
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


# Dynamics, against loops and formulas.


def test_recurrence_is_the_loop() -> None:
    factor, drive = torch.rand(4, 37), torch.randn(3, 4, 37)
    state, states = torch.zeros(3, 4), []
    for a, b in zip(factor.unbind(-1), drive.unbind(-1), strict=True):
        state = a * state + b
        states.append(state)
    found = linear_recurrence(factor, drive)
    torch.testing.assert_close(found, torch.stack(states, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (2, 7), (3, 2, 7)])
def test_recurrence_has_its_gradients(shape: tuple[int, ...]) -> None:
    inputs = (torch.rand(shape), torch.randn(3, 2, 7))
    leaves = tuple(leaf.requires_grad_() for leaf in inputs)
    assert torch.autograd.gradcheck(linear_recurrence, leaves)
    assert torch.autograd.gradgradcheck(linear_recurrence, leaves)


def test_recurrence_can_be_mapped_and_transformed() -> None:
    factor, drive = torch.rand(5, 7), torch.randn(5, 7)
    mapped = torch.vmap(linear_recurrence)(factor, drive)
    torch.testing.assert_close(mapped, linear_recurrence(factor, drive), rtol=1e-14, atol=0)
    jacobian = torch.func.jacrev(linear_recurrence, argnums=1)(factor[0], drive[0])
    exact = torch.autograd.functional.jacobian(lambda b: linear_recurrence(factor[0], b), drive[0])
    torch.testing.assert_close(jacobian, exact)


def test_relaxation_stays_in_bounds_at_any_speed() -> None:
    target = torch.rand(5, 50)
    state = relaxation(target, 1e4 * torch.rand(5, 50), rate=7.5)
    assert ((state >= 0) & (state <= target.cummax(-1).values)).all()


@pytest.mark.parametrize(("indicator", "peak"), [("gcamp6f", 0.063), ("gcamp6s", 0.158)])
def test_transient_peaks_and_decays_when_it_should(indicator: str, peak: float) -> None:
    model = LinearCalcium(2000.0, indicator, rise=True)
    transient = model.response(one_spike(20_000)).squeeze(0)
    rise, decay, height = model.rise, model.decay, model.amplitude
    seconds = (transient.argmax() + 1) / model.rate
    formula = (rise * (1 + decay / rise).log())[0]
    torch.testing.assert_close(seconds, formula, rtol=0, atol=1 / 2000)  # a frame
    assert abs(seconds - peak) <= 0.0005 + 1 / 2000  # published to a millisecond, and a frame
    torch.testing.assert_close(transient.max(), height[0], rtol=1e-5, atol=0)
    late = transient[8000:12_001]  # the rise is over: an exponential
    torch.testing.assert_close(late[-1] / late[0], torch.exp(-2 / decay[0]), rtol=1e-6, atol=0)


def test_transient_is_an_autoregression_of_order_2() -> None:
    model = LinearCalcium(30.0, rise=True)
    y = model.response(one_spike(60)).squeeze(0)
    slow = torch.exp(-1 / (30 * model.decay))
    fast = slow * torch.exp(-1 / (30 * model.rise))
    predicted = (slow + fast) * y[1:-1] - slow * fast * y[:-2]
    torch.testing.assert_close(y[2:], predicted, rtol=0, atol=1e-14)


def euler(model: FluorescenceModel, spikes: Tensor) -> Tensor:
    """The published steps, frame by frame: first order in the frame's length."""
    calcium, step, bound = model.calcium(spikes), 1 / model.rate, torch.zeros(len(spikes))
    found = []
    for c in calcium.unbind(-1):
        if isinstance(model, SaturatingCalcium):
            binding = model.binding * c**model.exponent
            bound = bound + step * (binding * (1 - bound) - bound / model.unbinding)
        else:
            n, rest, gamma = model.exponent, model.resting, model.saturation
            h = ((rest + c) ** n - rest**n) / ((rest + 1) ** n - rest**n)
            bound = bound + step / model.rise * (h - (1 + gamma * h) * bound)
        found.append(model.amplitude * bound)
    return torch.stack(found, -1)


@pytest.mark.parametrize("make", [SaturatingCalcium, PhysiologicalCalcium])
def test_binding_is_the_differential_equation(make: type[FluorescenceModel]) -> None:
    errors = []
    for rate in (500, 1000):
        model = make(float(rate))
        spikes = torch.zeros(2, rate)
        spikes[0, 0], spikes[1, : rate // 2 : rate // 10] = 1.0, 2.0
        exact = model.response(spikes)
        errors.append((euler(model, spikes) - exact).abs().amax(-1) / exact.amax(-1))
    assert (errors[0] < 0.1).all()
    # Of first order, so half as large, up to the second order: a tenth of that.
    torch.testing.assert_close(errors[1] / errors[0], torch.full((2,), 0.5), rtol=0, atol=0.05)


@pytest.mark.parametrize("indicator", ["gcamp6f", "gcamp6s"])
@each_model
def test_one_spike_looks_alike_in_all_models(make: Any, indicator: str) -> None:
    """Chen et al. (2013): 19 % and 23 %, published so, in whole percents."""
    model = make(500.0, indicator)
    expected = {"gcamp6f": 0.19, "gcamp6s": 0.23}[indicator]
    assert abs(model.response(one_spike(1000)).max() - expected) < 0.005


@pytest.mark.parametrize("make", [SaturatingCalcium, PhysiologicalCalcium])
def test_binding_facilitates_and_saturates(make: type[FluorescenceModel]) -> None:
    model = make(60.0)
    counts = torch.tensor([1.0, 2.0, 1e3, 1e4])
    peaks = model.response(counts[:, None] * one_spike(60)).amax(-1)
    assert peaks[1] > 2.2 * peaks[0]
    most = model.amplitude / getattr(model, "saturation", 1.0)
    torch.testing.assert_close(peaks[3:], most, rtol=1e-2, atol=0)  # 10,000 spikes: still free
    assert peaks[3] < most


@each_model
def test_response_does_not_depend_on_the_frame_rate(make: Any) -> None:
    """Up to the place of a spike within its frame."""
    slow, fast = make(100.0), make(100.0).at(800.0)
    spikes = torch.zeros(1, 100)
    spikes[0, ::20] = 1.0
    dense = torch.nn.functional.pad(spikes[..., None], (0, 7)).flatten(1)
    found, exact = slow.response(spikes), fast.response(dense)[:, 7::8]
    assert ((found - exact).abs().max() / exact.max()) < 0.12


# Noise, drift and missing frames.


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


# Cells.


@each_model
def test_each_cell_has_its_own_parameters(make: Any) -> None:
    model = make(30.0, num_cells=3)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(3)
    x, spikes = torch.randn(4, 40), (torch.rand(4, 40) < 0.1).double()
    together = total(model, x, spikes, cell=[2, 0, 0, 1])
    alone = [total(model, x[[i]], spikes[[i]], [c]) for i, c in enumerate((2, 0, 0, 1))]
    torch.testing.assert_close(together, sum(alone))
    in_order = total(model, x[:3], spikes[:3])
    assert torch.equal(in_order, total(model, x[:3], spikes[:3], cell=torch.arange(3)))


def test_a_model_learnt_at_one_frame_rate_serves_another() -> None:
    model = SaturatingCalcium(60.0, drift=False)
    other = model.at(15.0)
    assert (model.rate, other.rate) == (60.0, 15.0)
    other.response(one_spike(50)).sum().backward()
    assert model.binding_unconstrained.grad is not None


def test_held_parameters_are_not_learnt() -> None:
    model = LinearCalcium(30.0)
    model.hold("amplitude", "firing_rate")
    held = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert held == {"amplitude_unconstrained", "firing_rate_unconstrained"}


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_start_is_near_the_truth(drift: float) -> None:
    """At a spike in two seconds, in units of the noise."""
    baseline, noise = torch.linspace(-0.3, 0.3, 6), torch.linspace(0.05, 0.15, 6)
    truth = LinearCalcium(30.0, num_cells=6, num_frames=3000)
    truth.baseline, truth.noise_scale = baseline, noise
    truth.drift_scale, truth.firing_rate = torch.full((6,), drift + 1e-9), torch.full((6,), 0.5)
    x = truth(size=6).detach()
    x[1, 100:300] = torch.nan
    model = LinearCalcium(30.0, num_cells=6)
    model.start_at(x)
    torch.testing.assert_close(model.noise_scale, noise, rtol=0.15, atol=0)
    torch.testing.assert_close(model.baseline, baseline, rtol=0, atol=0.05 + 2 * drift)


@pytest.mark.parametrize("rate", [30.0, 60.0])
def test_heights_start_nearer_the_truth_than_the_usual_one(rate: float) -> None:
    """Heights of 0.25 to 0.5 where 0.19 is usual, with frames missing, and some of two spikes."""
    truth = draw_cells("linear", 40, rate, spikes="poisson")
    truth.noise_scale = torch.full((40,), 0.06)
    x = record(truth, 1500, bursts=0.2).traces
    x[:, 200:230] = torch.nan
    model = LinearCalcium(rate, num_cells=40)
    model.start_at(x)
    error = (model.amplitude / truth.amplitude).log().abs().median()
    usual = (0.19 / truth.amplitude).log().abs().median()
    assert error < usual / 2


def test_height_of_exact_transients() -> None:
    """Those below half of the usual one are none."""
    model = LinearCalcium(30.0, num_cells=3)
    spikes = torch.zeros(3, 1000)
    spikes[:, 50::100] = 1.0
    heights = torch.tensor([0.35, 0.12, 0.09])
    x = heights.unsqueeze(-1) / 0.19 * model.response(spikes) + 1e-5 * torch.randn(3, 1000)
    model.start_at(x)
    expected = torch.tensor([0.35, 0.12, 0.19])
    torch.testing.assert_close(model.amplitude, expected, rtol=1e-3, atol=0)


def test_height_stays_where_noise_hides_single_spikes() -> None:
    truth = LinearCalcium(30.0, num_cells=3, num_frames=1000)
    truth.noise_scale = torch.full((3,), 0.4)
    model = LinearCalcium(30.0, num_cells=3)
    model.start_at(truth(size=3).detach())
    assert model.amplitude.tolist() == pytest.approx([0.19] * 3)


def test_start_of_shared_parameters_and_of_worst_traces() -> None:
    shared = LinearCalcium(30.0)
    shared.start_at(torch.tensor([[0.1], [0.3]]) + 0.01 * torch.randn(2, 500))
    # Standard errors: of a quartile 1.36 s / sqrt n, of the median step 1.4 / sqrt n, relative.
    quartile, step = 1.36 * 0.01 / 1000**0.5, 1.4 / 1000**0.5
    torch.testing.assert_close(shared.baseline, torch.tensor([0.2]), rtol=0, atol=4 * quartile)
    torch.testing.assert_close(shared.noise_scale, torch.tensor([0.01]), rtol=4 * step, atol=0)
    each = LinearCalcium(30.0, num_cells=2)
    each.start_at(torch.stack([torch.full((50,), torch.nan), torch.zeros(50)]))
    assert each.noise_scale.isfinite().all()
    assert each.baseline.isfinite().all()
    assert each.amplitude.tolist() == pytest.approx([0.19, 0.19])


# Objectives.


class LogitGuide(nn.Module):
    """Independent spikes, drawn or relaxed, linear in the trace."""

    def __init__(self, relaxed: bool) -> None:
        super().__init__()
        self.relaxed = relaxed
        self.map = nn.Linear(40, 40)

    def forward(self, x: Tensor) -> None:
        logits = self.map(x) - 3.0
        frames = dist.RelaxedBernoulli(torch.tensor(0.5), logits=logits)
        with pyro.plate("data", len(x), dim=-1):
            train = frames if self.relaxed else dist.Bernoulli(logits=logits)
            pyro.sample("spikes", train.to_event(1))


@pytest.mark.parametrize("gradient", ["score", "vimco", "reparam", "dreg"])
@each_model
def test_objectives_train_model_and_guide(make: Any, gradient: str) -> None:
    relaxed = gradient in ("reparam", "dreg")
    model = make(30.0, num_frames=40, spikes="relaxed" if relaxed else "bernoulli")
    guide = LogitGuide(relaxed)
    x = model(size=6).detach()
    objective = IWAE(num_particles=8, gradient=gradient)
    objective.differentiable_loss(model, guide, x).backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@each_model
def test_parameters_are_learnt_from_known_spikes(make: Any) -> None:
    """From the other indicator's; single parameters trade off, what they say together does not."""
    truth, model = make(30.0, "gcamp6s", num_frames=800), make(30.0)
    trace = pyro.poutine.trace(truth).get_trace(size=4)
    x, spikes = (trace.nodes[name]["value"].detach() for name in ("x", "spikes"))
    model.start_at(x)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(120):
        optimiser.zero_grad()
        (-total(model, x, spikes)).backward()
        optimiser.step()
    exact, found = truth.response(spikes), model.response(spikes)
    assert (found - exact).std() < 0.1 * exact.std()
    torch.testing.assert_close(model.noise_scale, truth.noise_scale, rtol=0.05, atol=0)


def test_batches_name_their_cells_to_both_programs() -> None:
    model = LinearCalcium(30.0, num_cells=5, num_data=5)
    model.baseline = torch.arange(5.0)
    x, cell = model(torch.zeros(5, 40)) + torch.arange(5.0)[:, None], torch.arange(5)
    objective = IWAE(num_particles=3, gradient="vimco")

    def guide(x: Tensor, cell: Tensor) -> None:
        with pyro.plate("data", 5, subsample=torch.arange(len(x))):
            pyro.sample("spikes", dist.Bernoulli(torch.full((len(x), 40), 1e-3)).to_event(1))

    whole = objective.bound(model, guide, x, cell)
    assert (whole > 0).all()  # each trace beside its own baseline
    assert (objective.bound(model, guide, x[:2], cell[3:]) < -1000).all()


def test_particles_share_the_factor_of_a_row() -> None:
    noise = LinearCalcium(30.0).decode(torch.zeros(64, 5, 40))
    assert noise.batch_shape == (64, 5)
    assert noise.columns.shape[:-2] == (1,)


def test_poisson_spikes_are_counts() -> None:
    model = LinearCalcium(7.5, spikes="poisson")
    model.firing_rate = torch.tensor([15.0])
    spikes = model.prior(20_000)["spikes"].sample()
    assert (spikes.mean() - 2.0).abs() < 5 * (2.0 / 20_000) ** 0.5
    bernoulli = LinearCalcium(7.5)
    bernoulli.firing_rate = torch.tensor([15.0])
    torch.testing.assert_close(
        bernoulli.prior(3)["spikes"].mean, (1 - torch.tensor([[-2.0]]).exp()).expand(1, 3)
    )


# Bad input.


@pytest.mark.parametrize(
    ("options", "where", "expected", "found"),
    [
        ({}, "rate", "a number above 0", "None"),
        ({"rate": 0.0}, "rate", "a number above 0", "0.0"),
        ({"rate": -30}, "rate", "a number above 0", "-30"),
        ({"rate": float("nan")}, "rate", "a number above 0", "nan"),
        ({"rate": "30"}, "rate", "a number above 0", "'30'"),
        ({"rate": 30, "indicator": "gcamp"}, "indicator", "one of ['gcamp6f'", "'gcamp'"),
        ({"rate": 30, "spikes": "binary"}, "spikes", "one of ['bernoulli'", "'binary'"),
        ({"rate": 30, "num_cells": 0}, "num_cells", "an integer >= 1", "0"),
        ({"rate": 30, "num_frames": 0}, "num_frames", "an integer >= 1", "0"),
        ({"rate": 30, "temperature": 0}, "temperature", "a number above 0", "0"),
        ({"rate": 30, "drift_period": -1}, "drift_period", "a number above 0", "-1"),
    ],
)
def test_wrong_arguments(options: Any, where: str, expected: str, found: str) -> None:
    with explained(ProgramError, where, expected, found, f" {where}"):
        LinearCalcium(**options)


@pytest.mark.parametrize("shape", [(3, 1), (40,), (0, 40), (3, 40, 1), (3, 0)])
def test_wrong_traces(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="x: expected"):
        LinearCalcium(30.0)(torch.zeros(shape))


def test_one_frame_is_refused() -> None:
    where = "x", "shape (batch, frames >= 2)", "shape (3, 1)", "Put frames last"
    with explained(DataError, *where):
        LinearCalcium(30.0)(torch.zeros(3, 1))


def test_cells_must_be_known() -> None:
    model = LinearCalcium(30.0, num_cells=3)
    with explained(DataError, "cell", "the cell of each trace, 0 to 2", "none for 5", "Pass cell="):
        model(torch.zeros(5, 40))
    with explained(DataError, "cell", "shape (5,)", "shape (4,)", "one index a trace"):
        model(torch.zeros(5, 40), torch.arange(4))
    with explained(ProgramError, "name", "one of [", "'gain'", "Pass name="):
        model.hold("gain")


def test_enumeration_is_of_short_traces_of_bernoulli_spikes() -> None:
    with explained(DataError, "x", "at most 16 frames", "17", "Cut a window"):
        enumerate_spikes(LinearCalcium(30.0), torch.zeros(1, 17))
    with explained(ProgramError, "model", "Bernoulli spikes", "relaxed", "spikes='bernoulli'"):
        enumerate_spikes(LinearCalcium(30.0, spikes="relaxed"), torch.zeros(1, 9))
