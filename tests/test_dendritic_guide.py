"""The guide of two sites against the exact joint posterior of a dendrite of four frames."""

from itertools import product
from math import log
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_lvm.dreams import dream_log_q
from pyro_lvm.guides import DendriticSpikeGuide
from pyro_lvm.models import DendriticCalcium
from pyro_lvm.nn import TraceEncoder
from pyro_lvm.objectives import IWAE
from pyro_lvm.tracing import Recorder, record

FRAMES = 4
RATE, PROBABILITY = 30.0, 0.15


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


def dendrite() -> DendriticCalcium:
    """A shaft and a spine, which shows spikes and inputs alike, in noise of half their size."""
    model = DendriticCalcium(RATE, num_spines=1, num_frames=FRAMES, drift=False)
    often = torch.tensor([-RATE * log(1 - PROBABILITY)])
    model.firing_rate, model.synaptic_rate = often, often[:, None]
    return model.requires_grad_(False)


def small(posterior: str = "autoregressive") -> DendriticSpikeGuide:
    encoder = TraceEncoder((24, 24), (5, 5), noise=0.1)
    return DendriticSpikeGuide(
        encoder,
        encoder_features=24,
        rate=RATE,
        posterior=posterior,
        spike_rate=RATE * PROBABILITY,
        state_features=24,
    )


def all_trains() -> tuple[Tensor, Tensor]:
    """Every pair of trains: spikes ``(256, 1, T)`` and inputs ``(256, 1, 1, T)``."""
    both = torch.tensor(list(product((0.0, 1.0), repeat=2 * FRAMES))).unsqueeze(1)
    return both[..., :FRAMES], both[..., FRAMES:].unsqueeze(-2)


def log_joint(model: DendriticCalcium, x: Tensor) -> Tensor:  # (256, B)
    trains = all_trains()
    prior = zip(model.prior(FRAMES).values(), trains, strict=True)
    likelihood = model.decode(*trains, observed=~x.isnan()).log_prob(x.nan_to_num(0.0))
    return sum(p.log_prob(train) for p, train in prior) + likelihood


def log_q(guide: DendriticSpikeGuide, x: Tensor) -> Tensor:  # (256, B)
    spikes, synaptic = (train.expand(-1, len(x), *train.shape[2:]) for train in all_trains())
    given = Recorder(256, 1, {"spikes": spikes, "synaptic": synaptic})
    sites = record(guide, (x,), {}, given).sites.values()
    return sum(site.fn.log_prob(site.value) for site in sites)


def kl(q: Tensor, log_p: Tensor) -> Tensor:
    return (q.exp() * (q - log_p)).sum(0).mean()


def information(log_p: Tensor) -> Tensor:
    """Of spikes about inputs in the posterior, nats: the KL of drawing them apart."""
    joint = log_p.reshape(2**FRAMES, 2**FRAMES, -1)
    apart = joint.logsumexp(0, keepdim=True) + joint.logsumexp(1, keepdim=True)
    return (joint.exp() * (joint - apart)).sum((0, 1)).mean()


def train(guide: DendriticSpikeGuide, model: Any, steps: int) -> None:
    optimizer = torch.optim.Adam(guide.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    x = torch.zeros(128, 2, FRAMES)
    for _ in range(steps):
        optimizer.zero_grad()
        log_q = dream_log_q(
            model, guide, (x,), {}, max_plate_nesting=1, arguments=lambda data: data["x"]
        )
        (-log_q / len(x)).backward()
        optimizer.step()
        schedule.step()


def test_spikes_and_inputs_are_inferred_together() -> None:
    """Nearer to the joint posterior than any guide that draws the two sites apart."""
    model, guide = dendrite(), small()
    train(guide, model, 350)
    x = model(size=300)
    exact, ours = log_joint(model, x).log_softmax(0), log_q(guide, x).detach()
    torch.testing.assert_close(ours.exp().sum(0), torch.ones(300))
    assert kl(ours, exact) < 0.1 < information(exact)
    assert information(ours) == pytest.approx(information(exact).item(), rel=0.2)


@pytest.mark.parametrize("posterior", ["factorised", "autoregressive"])
def test_mean_weight_is_the_evidence(posterior: str, float64: Any) -> None:
    """Of a guide that is not trained, with a frame missing, by 4000 draws."""
    model, guide = dendrite().double(), small(posterior).double()
    x = model(size=20)
    x[0, 1, 2] = torch.nan
    ratio = (IWAE(4000).log_weights(model, guide, x) - log_joint(model, x).logsumexp(0)).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / 4000**0.5)
    assert z.abs().max() < 5
