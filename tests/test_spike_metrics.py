"""Metrics of inferred spikes against answers by hand, brute force and exact posteriors."""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from explained import explained
from torch import Tensor

from pyro_lvm.data import Traces
from pyro_lvm.diagnostics import (
    brier_score,
    count_bias,
    count_coverage,
    count_ratio,
    plot_spikes,
    reliability,
    spike_auc,
    spike_average_precision,
    spike_correlation,
    spike_f1,
    spike_inference_data,
    spike_log_score,
    spread,
)
from pyro_lvm.errors import DataError

NAN = math.nan
RATE = 60.0


def bernoulli(p: float, *shape: int) -> Tensor:
    return torch.bernoulli(torch.full(shape, p))


# Correlation and counts.


@pytest.mark.parametrize("bin_ms", [1000 / 60, 50.0, 100.0, 200.0])
def test_correlation_is_numpys(bin_ms: float, float64: torch.dtype) -> None:
    truth = torch.poisson(torch.full((3, 600), 0.2))
    estimate = truth + torch.rand(3, 600)
    width = round(bin_ms * RATE / 1000)
    found = spike_correlation(estimate, truth, RATE, bin_ms=bin_ms)
    for row in range(3):
        pair = [values[row].reshape(-1, width).sum(1).tolist() for values in (estimate, truth)]
        assert found[row].item() == pytest.approx(np.corrcoef(*pair)[0, 1])


def test_bins_of_two_and_a_half_frames(float64: torch.dtype) -> None:
    truth = torch.tensor([[1.0, 0.0, 2.0, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 1.0]])
    estimate = torch.arange(10.0)[None]
    bins = [[2.0, 2.0, 3.0, 1.0], [2.0, 8.0, 14.5, 20.5]]
    expected = np.corrcoef(*bins)[0, 1]
    assert spike_correlation(estimate, truth, 100.0, bin_ms=25.0).item() == pytest.approx(expected)


def test_scale_and_offset_do_not_matter(float64: torch.dtype) -> None:
    truth = bernoulli(0.1, 2, 300)
    torch.testing.assert_close(spike_correlation(3 * truth + 1, truth, RATE), torch.ones(2))


def test_unknown_frames_are_left_out(float64: torch.dtype) -> None:
    truth, estimate = bernoulli(0.2, 1, 400), torch.rand(1, 400)
    longer = torch.cat([truth, torch.full((1, 60), NAN)], 1), torch.rand(1, 60)
    both = torch.cat([estimate, longer[1]], 1), longer[0]
    torch.testing.assert_close(
        spike_correlation(*both, RATE, bin_ms=50.0),
        spike_correlation(estimate[:, :399], truth[:, :399], RATE, bin_ms=50.0),
    )
    torch.testing.assert_close(count_ratio(*both), count_ratio(estimate, truth))
    torch.testing.assert_close(count_bias(*both, RATE), count_bias(estimate, truth, RATE))
    torch.testing.assert_close(spike_auc(*both), spike_auc(estimate, truth))
    torch.testing.assert_close(brier_score(*both), brier_score(estimate, truth))
    found = (estimate > 0.5).double(), (both[0] > 0.5).double()
    torch.testing.assert_close(spike_f1(found[1], both[1], RATE), spike_f1(found[0], truth, RATE))
    covered = [
        count_coverage((e > torch.rand(50, 1, 1)).double(), t, RATE, window=0.5)
        for e, t in (both, (estimate, truth))
    ]
    assert all(bool(part.isfinite().all()) for coverage in covered for part in coverage)


def test_silent_cells_have_no_correlation_and_a_bias() -> None:
    silent, estimate = torch.zeros(1, 120), torch.full((1, 120), 0.5)
    assert spike_correlation(estimate, silent, RATE).isnan()
    assert spike_auc(estimate, silent).isnan()
    assert spike_average_precision(estimate, silent).isnan()
    assert count_ratio(estimate, silent).isinf()
    assert count_bias(estimate, silent, RATE).item() == 30.0
    assert spike_f1(silent, silent, RATE).isnan()
    assert spike_f1(estimate.ceil(), silent, RATE) == 0


def test_spread_is_over_the_cells_that_have_a_value() -> None:
    found = spread(torch.tensor([NAN, 3.0, 1.0, 2.0, math.inf]))
    assert found == (2.0, 1.5, 2.5, 3)
    assert spread(torch.tensor([NAN])).cells == 0


# Detection.


def test_auc_is_the_share_of_pairs_in_order(float64: torch.dtype) -> None:
    truth, estimate = bernoulli(0.3, 2, 80), torch.randint(0, 6, (2, 80)).double()
    for cell, found in enumerate(spike_auc(estimate, truth)):
        with_spike, without = (estimate[cell][truth[cell] == n] for n in (1, 0))
        pairs = (with_spike[:, None] - without).sign()
        assert found.item() == pytest.approx(((pairs + 1) / 2).mean().item())


def test_average_precision_by_hand(float64: torch.dtype) -> None:
    ranked = torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0, 1.0]])
    found = spike_average_precision(torch.arange(6.0, 0, -1)[None], ranked)
    assert found.item() == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)


def _most_pairs(first: list[int], second: list[int], reach: int) -> int:
    """Brute force over all one-to-one assignments."""
    short, long = sorted((first, second), key=len)
    orders = permutations(long, len(short))
    return max(sum(abs(a - b) <= reach for a, b in zip(short, order)) for order in orders)


def test_matching_finds_the_most_pairs(float64: torch.dtype) -> None:
    for _ in range(60):
        counts = bernoulli(0.25, 2, 14)
        counts[:, 0] *= 2
        first, second = ([t for t in range(14) for _ in range(int(row[t]))] for row in counts.int())
        if not first or not second or len(first + second) > 12:
            continue
        found = spike_f1(counts[:1], counts[1:], 10.0, tolerance=0.2).item()
        expected = 2 * _most_pairs(first, second, 2) / len(first + second)
        assert found == pytest.approx(expected)


def test_f1_of_each_draw() -> None:
    truth = torch.tensor([[0.0, 1, 0, 0, 1, 0, 0, 0]])
    draws = torch.stack([truth, truth.roll(1), truth.roll(3), torch.zeros(1, 8)])
    found = spike_f1(draws, truth, rate=20.0, tolerance=0.05)
    assert found.tolist() == [[1.0], [1.0], [0.5], [0.0]]


# Calibration.


def test_coverage_of_an_exact_posterior_is_its_level(float64: torch.dtype) -> None:
    """Each cell's draws have the law of its truth; 4 standard errors of 2000 windows are 0.045."""
    p = 0.04 * torch.rand(40, 1).expand(40, 3000)
    truth, draws = torch.bernoulli(p), torch.bernoulli(p.expand(200, -1, -1))
    for level in (0.5, 0.9):
        found = count_coverage(draws, truth, RATE, level=level)
        assert found.randomised.mean().item() == pytest.approx(level, abs=0.045)
        assert found.closed.mean().item() > level + 0.045


@pytest.mark.parametrize(
    ("level", "closed", "randomised"),
    [(0.7, [0, 1, 1, 0, 0], [0, 0.875, 0.875, 0, 0]), (0.9, [1, 1, 1, 1, 0], [0.5, 1, 1, 0.5, 0])],
)
def test_coverage_by_hand(
    level: float, closed: list[float], randomised: list[float], float64: torch.dtype
) -> None:
    """Counts 0 to 3 have the probabilities .1, .4, .4, .1; true ones are 0 to 4."""
    draws = torch.tensor([0, 1, 1, 1, 1, 2, 2, 2, 2, 3.0]).reshape(10, 1, 1).expand(-1, 5, -1)
    found = count_coverage(draws, torch.arange(5.0).unsqueeze(1), rate=1.0, level=level)
    torch.testing.assert_close(found.closed, torch.tensor(closed).double())
    torch.testing.assert_close(found.randomised, torch.tensor(randomised).double())


def test_a_posterior_that_is_too_sure_covers_less(float64: torch.dtype) -> None:
    truth = bernoulli(0.05, 10, 3000)
    sure = torch.full((200, 10, 3000), 0.0)
    sure[..., ::20] = 1.0
    assert (count_coverage(sure, truth, RATE).randomised < 0.4).all()


def test_windows_must_fit() -> None:
    with explained(DataError, "window", "at most 30 frames", "60 frames", "shorter window"):
        count_coverage(torch.zeros(5, 1, 30), torch.zeros(1, 30), RATE)


def test_reliability_by_hand(float64: torch.dtype) -> None:
    probabilities = torch.tensor([[0.05, 0.15, 0.55, 1.0], [0.95, 0.0, 0.5, 0.5]])
    truth = torch.tensor([[0.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, NAN]])
    curve = reliability(probabilities, truth, num_bins=2)
    assert curve.frames.tolist() == [3, 4]
    torch.testing.assert_close(curve.predicted, torch.tensor([0.2 / 3, 0.75]))
    torch.testing.assert_close(curve.observed, torch.tensor([1 / 3, 0.5]))
    assert curve.error.item() == pytest.approx((3 * (1 - 0.2) / 3 + 4 * 0.25) / 7)


def test_true_probabilities_are_reliable(float64: torch.dtype) -> None:
    """10,000 frames a bin: standard errors of at most 0.005."""
    p = torch.rand(10, 10_000)
    curve = reliability(p, torch.bernoulli(p))
    assert (curve.predicted - curve.observed).abs().max() < 0.02
    assert curve.error < 0.01
    assert reliability(p.sqrt(), torch.bernoulli(p)).error > 0.1
    assert reliability(p / 2, torch.bernoulli(p)).frames[5:].sum() == 0


def test_proper_scores(float64: torch.dtype) -> None:
    p = torch.tensor([[0.2, 0.7, 0.0, 0.3]])
    truth = torch.tensor([[0.0, 3.0, 0.0, NAN]])
    assert brier_score(p, truth).item() == pytest.approx((0.04 + 0.09 + 0) / 3)
    expected = (math.log(0.8) + math.log(0.7) + math.log(1 - 1e-4)) / 3
    assert spike_log_score(p, truth).item() == pytest.approx(expected)
    wrong = spike_log_score(torch.zeros(1, 1), torch.ones(1, 1), clip=1e-3)
    assert wrong.item() == pytest.approx(math.log(1e-3))


@pytest.mark.parametrize("score", [brier_score, spike_log_score, reliability])
def test_counts_are_no_probabilities(score: Any) -> None:
    with explained(DataError, "probabilities", "from 0 to 1", "others", "mean of (draws > 0)"):
        score(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))


@pytest.mark.parametrize("shape", [(2, 5), (5,), (1, 6)])
def test_shapes_must_agree(shape: tuple[int, ...]) -> None:
    with explained(DataError, "spikes", "(1, 5)", f"shape {shape}", "same frames"):
        spike_correlation(torch.zeros(shape), torch.zeros(1, 5), RATE)


# Results.


def recording(known: bool) -> Traces:
    x = torch.randn(2, 90)
    x[1, 60:] = NAN
    spikes = torch.zeros(2, 90)
    spikes[:, [10, 40]] = 1
    return Traces(x, 30.0, ["left", "right"], spikes if known else None)


def test_results_are_by_cell_and_time(tmp_path: Path) -> None:
    traces, draws = recording(known=True), bernoulli(0.1, 8, 2, 90)
    container = spike_inference_data(
        traces, draws, calcium=2 * draws, fluorescence=torch.randn(8, 2, 90), attrs={"seed": 3}
    )
    container.to_netcdf(str(tmp_path / "spikes.nc"), engine="h5netcdf")
    path = tmp_path / "spikes.nc"
    with xr.open_dataset(path, group="posterior", engine="h5netcdf") as posterior:
        assert posterior["spikes"].dims == ("chain", "draw", "cell", "time")
        assert posterior["cell"].values.tolist() == ["left", "right"]
        assert posterior["time"].values[[0, -1]] == pytest.approx([0.5 / 30, 3 - 0.5 / 30])
        assert (posterior["calcium"] == 2 * posterior["spikes"]).all()
    with xr.open_dataset(path, group="observed_data", engine="h5netcdf") as observed:
        assert int(observed["fluorescence"].isnull().sum()) == 30
    assert container["constant_data"]["true_spikes"].sum() == 4
    assert container["posterior_predictive"]["fluorescence"].dims[2:] == ("cell", "time")
    assert container.attrs["seed"] == 3


def test_results_without_truth() -> None:
    container = spike_inference_data(recording(known=False), torch.zeros(3, 2, 90))
    assert "constant_data" not in container
    assert "calcium" not in container["posterior"]


def test_results_must_be_on_the_frames_of_the_recording() -> None:
    with explained(DataError, "spikes", "(2, 90)", "shape (3, 2, 80)", "same frames"):
        spike_inference_data(recording(known=True), torch.zeros(3, 2, 80))


@pytest.mark.parametrize("known", [True, False])
def test_picture_of_a_cell(known: bool) -> None:
    traces, draws = recording(known), bernoulli(0.1, 12, 2, 90)
    figure = plot_spikes(traces, draws, 1, fitted=draws, start=1.0, seconds=1.0, num_rows=5)
    trace, middle, raster = figure.axes
    assert trace.get_title(loc="left") == "right"
    assert len(raster.collections) == 5 + known
    assert raster.get_xlim() == pytest.approx((1.0, 2.0))
    shown = trace.lines[0].get_xdata()
    assert np.asarray(shown) == pytest.approx((np.arange(30, 60) + 0.5) / 30)
    ticks = [line.get_xdata() for line in trace.lines if line.get_marker() == "|"]
    assert [np.asarray(t).tolist() for t in ticks] == ([pytest.approx([40.5 / 30])] * known)
    assert middle.get_ylim()[1] >= draws[:, 1, 30:60].mean(0).max()
