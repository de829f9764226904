"""Guides of spike trains: the contract on traces, bad traces, frame rates, two sites."""

from collections.abc import Callable, Iterator
from itertools import product
from math import nan
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from explained import explained
from moved import moved
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import DendriticSpikeGuide, SpikeGuide
from pyro_lvm.guides.spike_posteriors import AutoregressiveSpikes
from pyro_lvm.nn import OverTime, TraceEncoder
from pyro_lvm.nn.trace_encoder import noise_scale
from pyro_lvm.testing import check_guide
from pyro_lvm.tracing import Recorder, record

POSTERIORS = ("factorised", "relaxed", "straight_through", "autoregressive", "implicit")
every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
with_density = pytest.mark.parametrize("posterior", POSTERIORS[:-1])
FRAMES = 5

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


@pytest.fixture
def enumerable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For the contract's check of frequencies: every train of so few frames."""

    def enumerate_support(q: Autoregressive, expand: bool = True) -> Tensor:
        values = list(product((0.0, 1.0), repeat=q.event_shape.numel()))
        trains = q.context.new_tensor(values).reshape(-1, *[1] * len(q.batch_shape), *q.event_shape)
        return trains.expand(-1, *q.batch_shape, *q.event_shape)

    monkeypatch.setattr(Autoregressive, "enumerate_support", enumerate_support)
    return


def small(posterior: str = "factorised", make: Make = SpikeGuide, **options: Any) -> Any:
    encoder = TraceEncoder(channels=(6, 5), widths=(5, 3))
    given = {"encoder_features": 5, "posterior": posterior, "state_features": 4, "spike_rate": 20.0}
    return make(encoder, **{**given, **options})


def traces(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 0.3 * torch.randn(shape, dtype=dtype)


def with_gaps(*shape: int) -> Tensor:
    x = traces(*shape)
    x[0, ..., 1:3] = nan
    return x


# The contract. The suite of all guides has rows of numbers; here they are traces.


@every_posterior
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("enumerable")
def test_contract(posterior: str, dtype: torch.dtype) -> None:
    check_guide(moved(small(posterior)).to(dtype), traces(4, FRAMES, dtype=dtype))


@every_posterior
@pytest.mark.usefixtures("enumerable")
def test_contract_of_two_sites(posterior: str) -> None:
    guide = moved(small(posterior, DendriticSpikeGuide)).double()
    check_guide(guide, traces(4, 3, FRAMES, dtype=torch.float64), num_draws=2000)


@every_posterior
@pytest.mark.usefixtures("enumerable")
def test_contract_of_a_minibatch_with_gaps(posterior: str) -> None:
    check_guide(moved(small(posterior, num_data=40)), with_gaps(4, FRAMES), num_draws=500)


@pytest.mark.usefixtures("enumerable")
def test_contract_of_a_recurrent_encoder() -> None:
    encoder = TraceEncoder((6,), (5,), recurrent_features=4)
    check_guide(SpikeGuide(encoder, encoder_features=8), traces(4, FRAMES), num_draws=500)


@every_posterior
def test_any_kind_of_number_is_data(posterior: str) -> None:
    guide, x = small(posterior), torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    drawn = []
    for data in (x, x.double(), x.int(), x.double().numpy(force=True), x.tolist()):
        pyro.set_rng_seed(1)
        drawn.append(guide(data))
    for values in drawn[1:]:
        torch.testing.assert_close(values, drawn[0])


@every_posterior
def test_draws_are_wide_under_autocast(posterior: str) -> None:
    guide = small(posterior)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        draw = guide(traces(4, 20))["spikes"]
        assert draw.dtype == torch.float32
        if posterior != "implicit":
            assert guide.posterior(traces(4, 20)).log_prob(draw).dtype == torch.float32


@every_posterior
@pytest.mark.parametrize("make", [SpikeGuide, DendriticSpikeGuide])
def test_encoder_runs_once_a_call(posterior: str, make: Make) -> None:
    guide, rows = small(posterior, make), []
    guide.features.encoder.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    dims = (2,) if make is DendriticSpikeGuide else ()
    sites = record(guide, (traces(4, *dims, 20),), {}, Recorder(7, 1)).sites
    assert {name: site.value.shape[:2] for name, site in sites.items()} == dict.fromkeys(
        sites, (7, 4)
    )
    assert rows == [(8 if dims else 4, 20, 5)]


def test_a_cell_is_not_read() -> None:
    guide, x = small(), traces(4, 20)
    assert guide(x, torch.arange(4))["spikes"].shape == (4, 20)
    assert guide(x, cell=torch.arange(4))["spikes"].shape == (4, 20)


# Families.


def test_trains_sum_to_one() -> None:
    q = moved(small("autoregressive")).double().posterior(traces(3, 4))
    trains = q.context.new_tensor(list(product((0.0, 1.0), repeat=4)))
    total = q.log_prob(trains.unsqueeze(1)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [7.5, 30.0, 160.0])
@pytest.mark.parametrize("posterior", ["factorised", "straight_through", "relaxed", "implicit"])
def test_starts_with_few_spikes(rate: float, posterior: str) -> None:
    """As many per second at any frame rate, where the features are zero."""
    guide = SpikeGuide(Nothing(), encoder_features=3, rate=rate, posterior=posterior, spike_rate=2)
    spikes = guide.posterior(traces(50, 200)).sample((20,)) > 0.5
    assert rate * spikes.float().mean().item() == pytest.approx(2.0, rel=0.8)


class Nothing(nn.Module):
    def forward(self, x: Tensor, rate: float) -> Tensor:
        return torch.zeros(*x.shape, 3)


def test_a_recurrent_start_has_few_spikes() -> None:
    log_odds = -4.0
    network = AutoregressiveSpikes(3, log_odds, 8)
    rate = network(torch.zeros(100, 50, 3)).sample().mean()
    assert 0.2 < rate / torch.tensor(log_odds).sigmoid() < 5


def test_relaxed_draws_are_those_of_the_discrete_posterior() -> None:
    """One network serves both: relaxed draws exceed 1/2 as often as the spikes are 1."""
    guide, relaxed, x = moved(small()), small("relaxed"), traces(4, 10)
    relaxed.load_state_dict(guide.state_dict())
    often = (relaxed.posterior(x).sample((20_000,)) > 0.5).float().mean(0)
    exact = guide.posterior(x).mean
    error = (exact * (1 - exact) / 20_000).sqrt() + 1e-4
    assert ((often - exact).abs() / error).max() < 5


def test_implicit_frames_share_noise() -> None:
    """Neighbours are correlated, as independent draws would be by 1 / sqrt(4000) at most."""
    guide = small("implicit", temperature=1.0).double()
    with torch.no_grad():
        for parameter in guide.spikes.parameters():
            parameter.mul_(3)
    z = guide.posterior(traces(1, 12)).sample((4000,))[:, 0].logit()
    correlation = torch.corrcoef(z.T) - torch.eye(12)
    assert correlation.abs().max() > 10 / 4000**0.5


# Traces as they come.


def test_hidden_values_are_not_read() -> None:
    """Of a frame that is NaN there is its place alone, whatever the rest of the batch."""
    guide, x = small(), with_gaps(3, 30)
    logits = guide.posterior(x).base_dist.logits
    assert logits.isfinite().all()
    alone = guide.posterior(x[:1]).base_dist.logits
    torch.testing.assert_close(logits[:1], alone)
    filled = guide.posterior(x.nan_to_num(0.0)).base_dist.logits
    assert (logits[0] - filled[0]).abs().max() > 1e-4  # a gap is no zero
    logits.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in guide.parameters())


@every_posterior
@pytest.mark.parametrize(
    "x",
    [
        torch.full((2, 30), 3.0),
        torch.full((2, 30), nan),
        torch.zeros(2, 1),
        torch.cat([torch.zeros(2, 20), torch.ones(2, 10)], 1),
        1e-30 * torch.randn(2, 30),
        1e6 * torch.randn(2, 30),
    ],
    ids=["constant", "nothing-seen", "one-frame", "cut-off", "tiny", "huge"],
)
def test_degenerate_traces_have_finite_posteriors(posterior: str, x: Tensor) -> None:
    guide = small(posterior)
    draw = guide(x)["spikes"]
    assert draw.isfinite().all()
    assert draw.shape == x.shape
    if posterior != "implicit":
        assert guide.posterior(x).log_prob(draw).isfinite().all()


def test_noise_scale() -> None:
    """Of white noise under a slow drift and rare transients, with frames missing."""
    noise = torch.tensor([0.05, 0.2])
    x = noise[:, None] * torch.randn(2, 4000) + torch.linspace(0, 3, 4000)
    x[:, ::100] += 2.0
    x[:, 7::13] = nan
    # A median of n steps has the standard error 1.2 / sqrt(n) of its size; jumps shift it by 3 %.
    torch.testing.assert_close(noise_scale(x)[:, 0], noise, rtol=0.09, atol=0)


def test_baseline_and_gain_are_taken_out() -> None:
    guide, x = small(), traces(3, 50)
    logits = guide.posterior(x).base_dist.logits
    torch.testing.assert_close(guide.posterior(x + 2).base_dist.logits, logits, atol=1e-4, rtol=0)
    known = SpikeGuide(TraceEncoder((5,), (3,), noise=0.1), encoder_features=5)
    moved_up = known.posterior(x + 2).base_dist.logits - known.posterior(x).base_dist.logits
    assert moved_up.abs().min() > 0


# Frame rates.


def test_one_guide_at_other_rates() -> None:
    guide, x = small(rate=60.0), traces(3, 50)
    slow = guide.at(7.5)
    assert (guide.rate, slow.rate) == (60.0, 7.5)
    assert all(a is b for a, b in zip(guide.parameters(), slow.parameters(), strict=True))
    change = slow.posterior(x).base_dist.logits - guide.posterior(x).base_dist.logits
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(slow.at(60.0).posterior(x).mean, guide.posterior(x).mean)


def test_two_sites_at_another_rate() -> None:
    guide, x = small("autoregressive", DendriticSpikeGuide), traces(3, 2, 50)
    assert guide.at(30)(x)["synaptic"].shape == (3, 1, 50)
    assert guide.at(30).rate == 30.0


# Two sites.


def held(guide: Any, x: Tensor, spikes: Tensor) -> Tensor:
    """Log-odds of the inputs ``(*, B, S, T)`` given the spikes."""
    given = pyro.condition(guide, data={"spikes": spikes})
    fn = pyro.poutine.trace(given).get_trace(x).nodes["synaptic"]["fn"]
    return fn.base_dist.logits


def test_inputs_are_drawn_given_the_spikes() -> None:
    guide, x = small("factorised", DendriticSpikeGuide), traces(4, 3, 60)
    spikes = torch.zeros(4, 60)
    before, spikes[0, 30] = held(guide, x, spikes), 1.0
    changed = (held(guide, x, spikes) - before).abs() > 1e-6
    assert changed[0, :, 30].all()
    assert not changed[1:].any()
    assert not changed[0, :, :10].any()


def test_spines_in_another_order() -> None:
    guide, x, spikes = small(make=DendriticSpikeGuide), traces(4, 4, 30), torch.zeros(4, 30)
    order = [0, 3, 1, 2]
    logits, other = held(guide, x, spikes), held(guide, x[:, order], spikes)
    torch.testing.assert_close(other, logits[:, [2, 0, 1]])
    moved(guide)
    shared = [record(guide, (y,), {}, Recorder(None, 1)).sites["spikes"] for y in (x, x[:, order])]
    torch.testing.assert_close(*(site.fn.mean for site in shared))


@pytest.mark.parametrize("spines", [1, 2, 5])
def test_any_number_of_spines(spines: int) -> None:
    draws = small("autoregressive", DendriticSpikeGuide)(traces(3, spines + 1, 20))
    assert draws["synaptic"].shape == (3, spines, 20)


# What users get wrong.


@pytest.mark.parametrize("shape", [(64,), (4, 8, 8), (0, 64), (4, 0)])
def test_traces_of_another_shape(shape: tuple[int, ...]) -> None:
    with explained(DataError, "x", "(cells, frames)", f"shape {shape}", "x.T puts cells"):
        small()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 64), (4, 1, 64), (0, 3, 64), (4, 3, 0)])
def test_dendrites_of_another_shape(shape: tuple[int, ...]) -> None:
    with explained(DataError, "x", "(dendrites, spines + 1, frames)", f"{shape}", "x[None]"):
        small(make=DendriticSpikeGuide)(torch.zeros(shape))


@pytest.mark.parametrize("rate", [0.0, -30, nan, float("inf"), "30", None, True])
@pytest.mark.parametrize("make", [SpikeGuide, DendriticSpikeGuide])
def test_a_wrong_rate(rate: Any, make: Make) -> None:
    for call in (lambda: make(rate=rate), lambda: small(make=make).at(rate)):
        with explained(ProgramError, "rate", "a number above 0", repr(rate), "Pass rate=30.0"):
            call()


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"posterior": "poisson"}, "posterior", "'poisson'"),
        ({"temperature": 0.0}, "temperature", "0.0"),
        ({"spike_rate": -1.0}, "spike_rate", "-1.0"),
        ({"spike_rate": 60.0}, "spike_rate", "60.0 spikes in 60.0 frames"),
        ({"state_features": 0}, "state_features", "0"),
        ({"noise_features": 0}, "noise_features", "0"),
        ({"num_data": 0}, "num_data", "0"),
        ({"encoder": nn.Identity()}, "encoder_features", "None with encoder Identity"),
        ({"encoder_features": 3}, "encoder_features", "3 with encoder NoneType"),
    ],
)
@pytest.mark.parametrize("make", [SpikeGuide, DendriticSpikeGuide])
def test_wrong_arguments(make: Make, arguments: dict[str, Any], where: str, found: str) -> None:
    with explained(ProgramError, where, "", found, ""):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"channels": ()}, "widths", "0 channels and 5 widths"),
        ({"widths": (3, 3)}, "widths", "5 channels and 2 widths"),
        ({"channels": (4,), "widths": (4,)}, "widths", "4"),
        ({"channels": (0,), "widths": (3,)}, "channels", "0"),
        ({"recurrent_features": 0}, "recurrent_features", "0"),
        ({"noise": 0.0}, "noise", "0.0"),
    ],
)
def test_wrong_layers(arguments: dict[str, Any], where: str, found: str) -> None:
    with explained(ProgramError, where, "", found, ""):
        TraceEncoder(**arguments)


def test_a_filter_without_a_middle() -> None:
    with explained(ProgramError, "width", "an odd number", "4", "Pass 5"):
        OverTime(1, 1, 4)


def test_an_encoder_of_another_output() -> None:
    guide = SpikeGuide(Nothing(), encoder_features=4)
    with explained(DataError, "encoder Nothing", "(2, frames, 4)", "(2, 9, 3)", "one row a frame"):
        guide(torch.zeros(2, 9))


def test_rows_of_numpy_may_have_gaps() -> None:
    x = np.array([[0.1, np.nan, 0.3], [0.0, 0.2, 0.1]])
    assert small()(x)["spikes"].shape == (2, 3)
