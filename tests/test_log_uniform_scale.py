"""The proper log-uniform prior: its density by quadrature, its draws, its divergence."""

from itertools import pairwise

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_lvm.distributions import LogUniformScale
from pyro_lvm.errors import ProgramError

pytestmark = pytest.mark.usefixtures("float64")


def prior(low: float, high: float) -> LogUniformScale:
    return LogUniformScale(torch.tensor(low), torch.tensor(high))


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.5, 0.6), (0.1, 50.0)])
def test_density_against_quadrature_over_the_scale(low: float, high: float) -> None:
    """Also where one of its two forms takes over from the other, and far out."""
    w = high * torch.tensor([0.0, 1e-6, 1e-3, 0.3, 0.999999, 1.000001, 3.0, 8.0, -2.0])
    ends = torch.tensor([low, high]).log()
    log_scale = torch.linspace(*ends, 200_001)
    density = dist.Normal(0.0, log_scale.exp()).log_prob(w[:, None]).exp()
    exact = torch.trapezoid(density, log_scale) / (ends[1] - ends[0])
    torch.testing.assert_close(prior(low, high).log_prob(w), exact.log(), rtol=1e-6, atol=1e-6)


def test_gradients_are_finite_everywhere() -> None:
    for dtype in (torch.float32, torch.float64):
        p = LogUniformScale(torch.tensor(1e-3, dtype=dtype), torch.tensor(1.0, dtype=dtype))
        w = torch.tensor([0.0, 1e-9, 1e-3, 1.0, 5.0, 30.0], dtype=dtype, requires_grad=True)
        p.log_prob(w).sum().backward()
        assert w.grad is not None
        assert w.grad.isfinite().all()


@pytest.mark.parametrize("low", [1e-4, 1e-5])
@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_the_slope_at_draws_has_a_variance_without_limit(low: float, scale: float) -> None:
    """About 1 / (2 a s) under N(0, s^2), by quadrature: why closed forms are needed."""
    w = torch.logspace(-10, 1, 100_001).requires_grad_()
    (slope,) = torch.autograd.grad(prior(low, 1e3).log_prob(w).sum(), w)
    density = dist.Normal(0.0, scale).log_prob(w).exp()
    variance = 2 * torch.trapezoid((density * slope**2).detach(), w.detach())
    assert variance.item() == pytest.approx(1 / (2 * low * scale), rel=0.02)


def test_draws_have_the_density() -> None:
    """By the probabilities of six intervals."""
    p, count = prior(0.01, 1.0), 100_000
    drawn = p.rsample((count,)).abs()
    edges = torch.tensor([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 12.0])
    for low, high in pairwise(edges):
        w = torch.linspace(float(low), float(high), 20_001)
        exact = 2 * torch.trapezoid(p.log_prob(w).exp(), w)
        share = ((drawn > low) & (drawn <= high)).double().mean()
        assert abs(share - exact) < 5 * (exact * (1 - exact) / count) ** 0.5


def test_divergence_against_quadrature() -> None:
    """The paper's approximation, over log alpha from -8 to 8 and at a mean of 0."""
    p, unit = prior(1e-9, 1e5), torch.linspace(-12, 12, 200_001)
    log_alpha = torch.linspace(-8, 8, 9)
    for mean in [*(0.1 * (-log_alpha / 2).exp()), torch.tensor(0.0)]:
        q = dist.Normal(mean, torch.tensor(0.1))
        w = mean + 0.1 * unit
        ratio = q.log_prob(w) - p.log_prob(w)
        exact = torch.trapezoid(q.log_prob(w).exp() * ratio, w)
        assert abs(kl_divergence(q, p) - exact) < 0.01  # as its docstring promises


def test_one_of_sites_and_plates() -> None:
    p = prior(1e-3, 1.0).expand([4, 3]).to_event(1)
    assert p.rsample((2,)).shape == (2, 4, 3)
    assert p.log_prob(torch.zeros(3)).shape == (4,)
    q = dist.Normal(torch.zeros(4, 3), 1.0).to_event(1)
    assert kl_divergence(q, p).shape == (4,)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_ends_out_of_order_are_explained(low: float, high: float) -> None:
    with pytest.raises(ProgramError, match="LogUniformScale: expected 0 < low < high, got low="):
        prior(low, high)
