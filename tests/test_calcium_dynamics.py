"""Dynamics of calcium: against loops, formulas and differential equations, in float64.

Tolerances of 1e-12 and below are rounding.
"""

from typing import Any

import pytest
import torch
from calcium_models import each_model, one_spike
from torch import Tensor

from pyro_lvm.models import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.calcium_dynamics import linear_recurrence, relaxation
from pyro_lvm.models.fluorescence import FluorescenceModel

pytestmark = pytest.mark.usefixtures("float64")


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
    """Up to the length of a frame, to first order: half as much at twice the rate."""
    errors = []
    for rate in (100, 200):
        slow, parts = make(float(rate)), 1600 // rate
        spikes = torch.zeros(1, rate)
        spikes[0, :: rate // 5] = 1.0
        dense = torch.nn.functional.pad(spikes[..., None], (0, parts - 1)).flatten(1)
        exact = slow.at(1600.0).response(dense)[:, parts - 1 :: parts]
        errors.append((slow.response(spikes) - exact).abs().max() / exact.max())
    assert errors[0] < 0.06  # without noise: 0.05 where binding saturates
    assert errors[1] < errors[0] / 2 + 1e-12
