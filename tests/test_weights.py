"""Importance-weight statistics against ArviZ, against hand calculation, and at the edges."""

import arviz as az
import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_lvm.weights import (
    effective_sample_size,
    khat_of_tail,
    log_mean_exp,
    pareto_khat,
    pareto_smooth,
    tail_length,
)

SHAPES = torch.tensor([-0.5, -0.1, 0.2, 0.5, 0.7, 1.0, 2.0], dtype=torch.float64)
ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1

# ArviZ 1.x rounds the length of the tail down, not up, and counts weights tied with the cut.
SIZES = [100, 225] if ARVIZ_1 else [21, 25, 100, 226, 1000, 5000]
KINDS = ["continuous", "zeros", "far away", "normal", *([] if ARVIZ_1 else ["tied"])]


def arviz_psis(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """ArviZ's smoothed log-weights and k-hat; 1.x wants log-likelihoods, minus log-weights."""
    values = log_weights.T.contiguous().cpu().numpy()
    if ARVIZ_1:
        from arviz_stats.base import array_stats

        smoothed, khat = array_stats.psislw(-values, axis=-1)
    else:
        smoothed, khat = az.psislw(values)
    return torch.as_tensor(np.asarray(smoothed)).T, torch.as_tensor(np.asarray(khat))


def pareto_log_weights(num_samples: int, shapes: Tensor = SHAPES) -> Tensor:  # (K, len(shapes))
    """Weights 1 + generalised Pareto draws of each shape: light and heavy tails."""
    u = torch.rand(num_samples, len(shapes), dtype=torch.float64)
    return torch.log1p((u**-shapes - 1) / shapes)


@pytest.mark.parametrize("num_samples", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_arviz(num_samples: int, kind: str) -> None:
    log_weights = pareto_log_weights(num_samples)
    if kind == "tied":  # some values repeat, also at the cut
        log_weights = (log_weights * 20).round() / 20
    elif kind == "zeros":
        log_weights[torch.rand_like(log_weights) < 0.4] = -torch.inf
    elif kind == "far away":
        log_weights = log_weights - 1e4
    elif kind == "normal":
        log_weights = 3 * torch.randn_like(log_weights)
    smoothed, khat = pareto_smooth(log_weights)
    expected_smoothed, expected = arviz_psis(log_weights)
    # "far away" has lost four digits of each weight before either sees them
    tolerance = {"rtol": 1e-6, "atol": 1e-6 if kind == "far away" else 1e-9}
    torch.testing.assert_close(khat, expected, **tolerance)
    torch.testing.assert_close(pareto_khat(log_weights), khat)
    normalised = smoothed - smoothed.logsumexp(0)  # tied weights come in any order: sort
    torch.testing.assert_close(
        normalised.sort(0).values, expected_smoothed.sort(0).values, **tolerance
    )


def test_finds_the_shape_of_a_tail() -> None:
    shapes = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64).repeat_interleave(200)
    khat = pareto_khat(pareto_log_weights(5000, shapes)).reshape(3, 200)
    # Of 213 tail draws: standard error (1 + k) / sqrt(213 * 200) < 0.01 of the mean, and the
    # prior pulls by 10 / 223 * |k - 0.5| < 0.023.
    torch.testing.assert_close(khat.mean(1), shapes[::200], atol=0.05, rtol=0)


def test_khat_of_degenerate_weights() -> None:
    assert pareto_khat(torch.zeros(100)) == 0.0, "equal weights have no tail"
    assert pareto_khat(torch.randn(20)) == torch.inf, "a tail of four cannot be fitted"
    assert pareto_khat(torch.randn(21)).isfinite()
    assert pareto_khat(torch.randn(1)) == torch.inf
    few = torch.full((100,), -torch.inf)
    few[:3] = torch.randn(3)
    assert pareto_khat(few) == torch.inf, "three weights above the cut"
    for bad in (-torch.inf, torch.nan, torch.inf):
        assert pareto_khat(torch.full((100,), bad)).isnan()
    spoilt = torch.randn(100, 2)
    spoilt[7, 0] = torch.nan
    assert pareto_khat(spoilt).isnan().tolist() == [True, False]


def test_near_equal_weights_are_fitted_not_rounded_away() -> None:
    noise = torch.rand(1000, 50, dtype=torch.float64)
    torch.testing.assert_close(
        pareto_khat(1e-9 * noise), pareto_khat(1e-6 * noise), atol=1e-3, rtol=0
    )
    assert (pareto_khat(1e-9 * noise) < 0.7).all()


def test_shapes_dtypes_and_devices(device: torch.device) -> None:
    double = pareto_log_weights(500, SHAPES[:6]).reshape(500, 2, 3)
    khat = pareto_khat(double)
    assert khat.shape == (2, 3)
    single = pareto_khat(double.to(device, torch.float32))
    assert single.dtype == torch.float32
    assert single.device.type == device.type
    torch.testing.assert_close(single.double(), khat, atol=1e-3, rtol=0)
    assert pareto_khat(double.bfloat16()).dtype == torch.float32
    assert pareto_khat(double[:, 0, 0]).shape == ()
    assert pareto_khat(double[:, :0]).shape == (0, 3)


def test_khat_needs_the_largest_weights_only() -> None:
    log_weights = pareto_log_weights(1000)
    largest = log_weights.topk(tail_length(1000) + 1, dim=0).values
    assert torch.equal(khat_of_tail(largest), pareto_khat(log_weights))


def test_smoothing_leaves_what_it_cannot_fit() -> None:
    for log_weights in (torch.randn(20, 3), torch.zeros(100, 2)):
        assert torch.equal(pareto_smooth(log_weights)[0], log_weights)


def test_smoothing_tames_a_heavy_tail() -> None:
    """The estimate of the mean weight has a lower error where the variance is infinite."""
    log_weights = pareto_log_weights(200, torch.full((2000,), 0.6, dtype=torch.float64))
    exact = 1 + 1 / (1 - 0.6)  # mean of 1 + generalised Pareto(k=0.6, sigma=1)
    raw = (log_mean_exp(log_weights).exp() - exact).square().mean()
    smoothed = (log_mean_exp(pareto_smooth(log_weights)[0]).exp() - exact).square().mean()
    assert smoothed < raw


def test_effective_sample_size_by_hand() -> None:
    weights = torch.tensor([[1 / 6, 1.0, 1.0], [1 / 3, 0.0, 1.0], [1 / 2, 0.0, 1.0]])
    expected = torch.tensor([36 / 14, 1.0, 3.0])
    torch.testing.assert_close(effective_sample_size(weights.log()), expected)
    torch.testing.assert_close(
        effective_sample_size(weights.log() - 1e3), expected, rtol=1e-3, atol=0
    )
    assert effective_sample_size(torch.full((5,), -torch.inf)).isnan()


def test_log_mean_exp_by_hand() -> None:
    weights = torch.tensor([[1 / 6, 1 / 3, 1 / 2]])
    torch.testing.assert_close(log_mean_exp(weights.log(), dim=1), torch.tensor([1 / 3]).log())
    assert log_mean_exp(torch.full((4,), -torch.inf)) == -torch.inf
