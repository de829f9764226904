"""Where parameters of calcium models start: from the traces they are to be learnt of."""

import pytest
import torch

from pyro_lvm.models import LinearCalcium
from pyro_lvm.models.calcium_simulation import draw_cells, record

pytestmark = pytest.mark.usefixtures("float64")


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
