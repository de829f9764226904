"""Simulated recordings: their ranges, seeds, noise and bursts."""

from typing import Any

import pytest
import torch
from explained import explained

from pyro_lvm.data import Traces, noise_level
from pyro_lvm.errors import ProgramError
from pyro_lvm.models.calcium_simulation import (
    PRESETS,
    draw_cells,
    record,
    scale_of_level,
    simulate,
)

each_preset = pytest.mark.parametrize("preset", PRESETS)


@each_preset
def test_a_seed_gives_one_recording(preset: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (simulate(preset, 3, 200, 30.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.traces, again.traces)
    assert torch.equal(first.spikes, again.spikes)
    assert not torch.equal(first.traces, other.traces)
    assert first.traces.shape == first.spikes.shape == (3, 200)
    assert not first.traces.requires_grad


@each_preset
def test_parameters_are_in_their_ranges(preset: str) -> None:
    model = draw_cells(preset, 500, rate=30.0)
    for name, (least, most) in PRESETS[preset].ranges.items():
        if name == "noise_level":
            least, most = (level * 0.0105 * 30**0.5 for level in (least, most))
            name = "noise_scale"
        drawn = getattr(model, name)
        assert drawn.shape == (500,)
        assert ((drawn > 0.999 * least) & (drawn < 1.001 * most)).all(), name
        assert drawn.log().std() > 0.25 * torch.tensor(most / least).log()  # uniform: 0.289


@each_preset
def test_traces_are_fluorescence_and_noise(preset: str) -> None:
    traces, spikes, model = simulate(preset, 20, 4000, 60.0)
    found = (traces - model.fluorescence(spikes)).diff().std(-1) / 2**0.5
    error = (0.75 / 4000) ** 0.5  # standard error, for neighbouring steps are correlated by -1/2
    torch.testing.assert_close(found, model.noise_scale, rtol=5 * error, atol=0)  # 20 cells
    expected = model.firing_rate * 4000 / 60
    assert ((spikes.sum(-1) - expected).abs() < 6 * expected.sqrt()).all()


def test_noise_level_is_that_of_the_field() -> None:
    traces, _, _ = simulate("gcamp6f", 50, 3000, 30.0)
    level = noise_level(Traces(traces, rate=30.0))
    assert ((level > 0.9) & (level < 4.6)).all()


def test_scale_is_that_of_the_noise_level() -> None:
    level = torch.tensor([1.0, 2.0, 4.0])
    scale = scale_of_level(level, 30.0)
    of_three_decimals = torch.tensor([0.057, 0.115, 0.230])
    torch.testing.assert_close(scale, of_three_decimals, rtol=0, atol=0.0005)
    x = Traces(scale[:, None] * torch.randn(3, 100_000), rate=30.0)
    error = 1.4 / 100_000**0.5  # standard error of the median step, relative
    torch.testing.assert_close(noise_level(x), level, rtol=4 * error, atol=0)


@pytest.mark.parametrize("spikes", ["bernoulli", "poisson"])
def test_bursts_add_what_they_should(spikes: Any) -> None:
    """Three more spikes on average, at a rate where none of them share a frame."""
    model = draw_cells("linear", 20, rate=200.0, spikes=spikes)
    _, trains, _ = record(model, 20_000, bursts=0.2)
    expected = model.firing_rate.sum() * 100
    ratio = trains.sum() / expected
    assert abs(ratio - 1.6) < 5 * (5.0 / expected) ** 0.5
    assert (trains <= 1).all() or spikes == "poisson"
    after = [float((trains[:, :-lag] * trains[:, lag:]).mean()) for lag in (1, 2, 3, 4, 50)]
    assert min(after[1:4]) > 5 * after[4]
    assert after[0] < 3 * after[4]  # gaps are of 10 ms and more


def test_a_burst_at_the_end_is_cut_off() -> None:
    model = draw_cells("linear", 200, rate=60.0, spikes="poisson")
    model.firing_rate = torch.full((200,), 30.0)
    traces, spikes, _ = record(model, 5, bursts=1.0)
    assert spikes.shape == (200, 5)
    assert traces.isfinite().all()


@pytest.mark.parametrize(
    ("options", "where", "expected", "found"),
    [
        ({"preset": "gcamp"}, "preset", "one of [", "'gcamp'"),
        ({"num_cells": 0}, "num_cells", "an integer >= 1", "0"),
        ({"num_frames": 0}, "num_frames", "an integer >= 1", "0"),
        ({"rate": 0}, "rate", "a number above 0", "0"),
        ({"bursts": 1.5}, "bursts", "a part between 0 and 1", "1.5"),
    ],
)
def test_wrong_arguments(options: Any, where: str, expected: str, found: str) -> None:
    with explained(ProgramError, where, expected, found, where):
        simulate(**options)
