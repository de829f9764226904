"""Counts that stop, by hand; guides of counted spikes, against enumeration."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pytest
import torch
from explained import explained
from moved import moved
from torch import Tensor

from pyro_lvm.distributions import Autoregressive, StoppedCounts
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import DendriticSpikeGuide, SpikeGuide
from pyro_lvm.models import LinearCalcium
from pyro_lvm.nn import TraceEncoder
from pyro_lvm.objectives import IWAE, WakeSleep
from pyro_lvm.testing import check_guide

pytestmark = pytest.mark.usefixtures("float64")

FRAMES, MOST = 3, 8
both = pytest.mark.parametrize("posterior", ["factorised", "autoregressive"])
each_guide = pytest.mark.parametrize("make", [SpikeGuide, DendriticSpikeGuide])


def logits() -> Tensor:
    return torch.tensor([[0.3, -0.5, -1.0], [-2.0, 1.0, -0.2]])


def test_probabilities_sum_to_one_with_their_mean() -> None:
    """The rest, beyond 200, is below exp(-0.6 * 197)."""
    counts, values = StoppedCounts(logits()), torch.arange(200.0).unsqueeze(-1)
    p = counts.log_prob(values).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(2), rtol=0, atol=1e-12)
    torch.testing.assert_close((values * p).sum(0), counts.mean, rtol=0, atol=1e-12)


def test_first_counts_are_products() -> None:
    go_on = logits()[0].sigmoid()
    by_hand = torch.stack(
        [1 - go_on[0], go_on[0] * (1 - go_on[1]), go_on[:2].prod() * (1 - go_on[2])]
    )
    tail = go_on.prod() * go_on[2] ** 4 * (1 - go_on[2])
    p = StoppedCounts(logits()[0]).log_prob(torch.tensor([0.0, 1.0, 2.0, 7.0])).exp()
    torch.testing.assert_close(p, torch.cat([by_hand, tail[None]]), rtol=0, atol=1e-14)


def test_draws_are_as_frequent_as_they_should() -> None:
    counts, number = StoppedCounts(logits()).expand((5, 2)), 40_000
    draws = counts.sample((number,))
    for value in range(7):
        p = counts.log_prob(torch.tensor(float(value))).exp()
        error = (p * (1 - p) / number).sqrt() + 1 / number
        assert (((draws == value).double().mean(0) - p).abs() / error).max() < 5


def test_certain_logits_are_finite() -> None:
    sure = StoppedCounts(torch.tensor([[200.0, -200.0], [-200.0, -200.0]]))
    assert sure.sample((50,)).unique(dim=0).tolist() == [[1.0, 0.0]]
    assert sure.log_prob(torch.tensor([1.0, 0.0])).abs().max() < 1e-80
    assert sure.log_prob(torch.tensor([3.0, 3.0])).isfinite().all()


def guide_of(posterior: str, make: Callable[..., Any] = SpikeGuide, **options: Any) -> Any:
    """Moved away from its start, so that x matters and frames depend on others."""
    encoder = TraceEncoder(channels=(6, 5), widths=(5, 3), noise=0.1)
    given = {"encoder_features": 5, "state_features": 8, "spike_rate": 5.0, "rate": 7.5}
    return moved(make(encoder, posterior=posterior, counts=True, **given, **options))


def trains() -> Tensor:
    return torch.tensor(list(product(range(MOST + 1), repeat=FRAMES)), dtype=torch.float64)


@both
@each_guide
def test_contract(
    posterior: str, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frequencies of the smaller counts and trains; the others have the rest."""

    def small_counts(q: StoppedCounts) -> Tensor:
        values = torch.arange(5.0).reshape(-1, *[1] * len(q.batch_shape))
        return values.expand(-1, *q.batch_shape)

    def small_trains(q: Autoregressive) -> Tensor:
        values = torch.tensor(list(product((0.0, 1.0, 2.0), repeat=FRAMES)))
        values = values.reshape(-1, *[1] * len(q.batch_shape), FRAMES)
        return values.expand(-1, *q.batch_shape, FRAMES)

    monkeypatch.setattr(StoppedCounts, "enumerate_support", small_counts, raising=False)
    monkeypatch.setattr(Autoregressive, "enumerate_support", small_trains)
    shape = (4, 3, FRAMES) if make is DendriticSpikeGuide else (4, FRAMES)
    check_guide(guide_of(posterior, make), 0.3 * torch.randn(shape), num_draws=2000)


def slow_cells() -> LinearCalcium:
    """Half a spike in each of three frames; one spike is four times the noise."""
    model = LinearCalcium(7.5, spikes="poisson", num_frames=FRAMES, drift=False)
    model.firing_rate, model.amplitude = torch.tensor([3.75]), torch.tensor([0.4])
    return model.requires_grad_(False)


def exact(model: LinearCalcium, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and log p(train | x), ``(B,)`` and ``(trains, B)``; more than 8 spikes a frame
    have a probability below 1e-8.
    """
    every = trains().unsqueeze(1)
    joint = model.prior(FRAMES)["spikes"].log_prob(every) + model.decode(every).log_prob(x)
    evidence = joint.logsumexp(0)
    return evidence, joint - evidence


@both
def test_evidence_is_that_of_the_enumeration(posterior: str) -> None:
    """With one spike as high as the noise: the guide has not been trained."""
    model = slow_cells()
    model.amplitude = torch.tensor([0.1])
    x = model(size=3)
    guide = guide_of(posterior)
    log_p, _ = exact(model, x)
    weights = (IWAE(20_000).log_weights(model, guide, x) - log_p).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / 20_000**0.5).all()


@both
def test_counts_are_learnt_from_dreams(posterior: str) -> None:
    pyro.settings.set(module_local_params=True)
    model, guide = slow_cells(), guide_of(posterior)
    x = model(size=40)
    _, log_posterior = exact(model, x)
    objective = WakeSleep(arguments=lambda dream: dream["x"])
    optimizer = torch.optim.Adam(guide.parameters(), 2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        objective.differentiable_loss(model, guide, model(size=64)).backward()
        optimizer.step()
    log_q = guide.posterior(x).log_prob(trains().unsqueeze(1)).detach()
    kl = (log_posterior.exp() * (log_posterior - log_q)).sum(0).mean()
    prior = model.prior(FRAMES)["spikes"].log_prob(trains()).unsqueeze(1)
    assert kl < 0.3 * (log_posterior.exp() * (log_posterior - prior)).sum(0).mean()


@each_guide
def test_families_without_counts(make: Callable[..., Any]) -> None:
    with explained(ProgramError, "posterior", "factorised", "'relaxed'", ""):
        make(rate=30.0, posterior="relaxed", counts=True)
