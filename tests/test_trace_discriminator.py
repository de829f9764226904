"""Discriminators of spike trains: shapes, start, gaps, and the log-ratio that they learn."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.models import LinearCalcium
from pyro_lvm.nn import TraceDiscriminator, TraceEncoder
from pyro_lvm.objectives import AVB, IWAVB
from pyro_lvm.tracing import Program

FRAMES = 10


def small(hidden: int = 16, width: int = 5) -> TraceDiscriminator:
    return TraceDiscriminator(TraceEncoder((6, 5), (5, 3), noise=1.0), hidden=hidden, width=width)


def test_logits_have_the_shape_of_the_draws() -> None:
    T, z, x = small(), torch.rand(7, 5, FRAMES), torch.randn(5, FRAMES)
    together = T(z, x)
    assert together.shape == (7, 5)
    torch.testing.assert_close(together[2, 3], T(z[2, 3:4], x[3:4])[0])
    assert T(z[0], x).shape == (5,)
    assert T(z).shape == (7, 5)


def test_start_and_gradients() -> None:
    """Near 0, so that the first log-ratio is that of equal densities; and every part learns."""
    T = small()
    logits = T(torch.rand(20, 50, FRAMES), torch.randn(50, FRAMES))
    assert logits.abs().max() < 0.05  # densities alike to 5 %
    for gradient in torch.autograd.grad(logits.square().sum(), [*T.parameters()]):
        assert (gradient != 0).any()


def test_traces_run_once_and_may_have_gaps() -> None:
    T, rows = small(), []
    T.encoder.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    x = torch.randn(5, FRAMES)
    x[0, 3] = torch.nan
    assert T(torch.rand(7, 5, FRAMES), x.double().numpy(force=True)).isfinite().all()
    assert rows == [(5, FRAMES, 5)]


def test_spikes_at_the_ends_have_finite_logits_and_slopes() -> None:
    z = torch.tensor([[0.0, 1.0, 0.5, 1e-30]], requires_grad=True)
    (slope,) = torch.autograd.grad(small()(z, torch.zeros(1, 4)).sum(), z)
    assert slope.isfinite().all()


def test_logits_are_wide_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = small()(torch.rand(5, FRAMES), torch.randn(5, FRAMES))
    assert logits.dtype == torch.float32


def posterior(x: Tensor) -> dist.TorchDistribution:
    """Relaxed spikes that the trace moves away from their prior, the one at a trace of 0."""
    odds = dist.RelaxedBernoulli(torch.tensor(0.5), logits=-2.0 + 1.2 * x)
    trains: dist.TorchDistribution = odds.to_event(1)
    return trains


def test_learns_a_known_ratio() -> None:
    """Of relaxed Bernoullis, whose log-ratio is a sum over frames, each of its own spike."""
    T = small(hidden=32, width=1)
    optimizer = torch.optim.Adam(T.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        x = torch.randn(256, FRAMES)
        real, fake = posterior(x).sample(), posterior(0 * x).sample()
        optimizer.zero_grad()
        (softplus(-T(real, x)).mean() + softplus(T(fake, x)).mean()).backward()
        optimizer.step()
        schedule.step()
    x = torch.randn(4000, FRAMES)
    z = posterior(x).sample()
    exact = posterior(x).log_prob(z) - posterior(0 * x).log_prob(z)
    found = T(z, x).detach()
    assert exact.mean() > 1.5
    assert (found - exact).mean().abs() < 0.2 * exact.mean()  # over seeds up to 0.11
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.95


@pytest.mark.parametrize("objective", [AVB, IWAVB])
def test_trains_an_implicit_guide_on_a_calcium_model(objective: type) -> None:
    """The guide gets a gradient in every parameter, the discriminator its own step."""
    pyro.settings.set(module_local_params=True)
    model: Program = LinearCalcium(30.0, num_frames=FRAMES, spikes="relaxed", drift=False)
    guide: nn.Module = SpikeGuide(rate=30.0, posterior="implicit")
    T = small()
    before = [p.clone() for p in T.parameters()]
    adversarial = objective(T, 3)
    x = LinearCalcium(30.0, num_frames=FRAMES, drift=False)(size=4).detach()
    x[0, 2] = torch.nan
    adversarial.differentiable_loss(model, guide, x).backward()
    assert all(bool(p.grad.isfinite().all() & p.grad.any()) for p in guide.parameters())
    assert any((a != b).any() for a, b in zip(before, T.parameters(), strict=True))


def test_traces_of_another_length() -> None:
    T = small()
    with explained(
        ProgramError, "context of a discriminator", "5 frames", "shape (2, 6)", "Pass context="
    ):
        T(torch.rand(2, 5), torch.zeros(2, 6))


@pytest.mark.parametrize(("name", "value"), [("rate", 0.0), ("hidden", 0), ("width", 4)])
def test_wrong_arguments(name: str, value: float) -> None:
    with explained(ProgramError, name, "", str(value), ""):
        TraceDiscriminator(**{name: value})
