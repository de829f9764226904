"""Flows as distributions: a density that is one, and exact gradients of it."""

import subprocess
import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from flow_parts import bent, every_family, gradients, grid
from torch import Tensor, nn

from pyro_lvm.distributions import ConditionalFlow, FlowDistribution

with_context = pytest.mark.parametrize("context_features", [0, 3])


def context_of(flow: ConditionalFlow, *shape: int) -> Tensor | None:
    size = flow.context_features
    return torch.randn(*shape, size, requires_grad=True) if size else None


@every_family
@with_context
def test_density_integrates_to_one(family: str, context_features: int, float64: Any) -> None:
    """The trapezoid rule is exact to 1e-8 for a smooth density; a spline's has kinks."""
    flow = bent(2, context_features, family, num_transforms=2)
    points, area = grid(14.0, 281)
    with torch.no_grad():
        mass = flow(context_of(flow)).log_prob(points).exp().sum() * area
    assert abs(mass - 1) < (1e-3 if "nsf" in family else 1e-6)


@every_family
@with_context
@pytest.mark.parametrize("features", [1, 3])
def test_density_is_the_change_of_variables(
    family: str, context_features: int, features: int, float64: Any
) -> None:
    flow = bent(features, context_features, family)
    context = context_of(flow)
    to_value = flow.flow(context).transform.inv
    for noise in torch.randn(5, features):
        jacobian = torch.autograd.functional.jacobian(to_value, noise)
        expected = dist.Normal(0.0, 1.0).log_prob(noise).sum() - jacobian.det().abs().log()
        torch.testing.assert_close(flow(context).log_prob(to_value(noise)), expected)


@every_family
def test_tails_of_a_spline_are_normal(family: str, float64: Any) -> None:
    """Outside [-5, 5] of the standardised value a spline is the identity, in every layer."""
    flow, far = bent(2, 0, family), torch.tensor([[60.0, -70.0]])
    affine = flow.flow.transform.transform.transforms[-1]().base
    normal = dist.Normal(affine.shift, affine.scale).to_event(1)
    is_normal = torch.allclose(flow().log_prob(far), normal.log_prob(far))
    assert is_normal == ("nsf" in family)


@every_family
@with_context
def test_shapes(family: str, context_features: int) -> None:
    flow = bent(3, context_features, family)
    q = flow(context_of(flow, 4))
    batch = (4,) if context_features else ()
    assert (q.batch_shape, q.event_shape, q.event_dim) == (batch, (3,), 1)
    particles = q.expand((6, 4))
    assert particles.batch_shape == (6, 4)
    assert particles().shape == (6, 4, 3)
    assert particles((5,)).shape == (5, 6, 4, 3)
    assert particles.log_prob(particles((5,))).shape == (5, 6, 4)
    assert particles.log_prob(torch.zeros(3)).shape == (6, 4)
    assert q.log_prob(torch.zeros(6, 4, 3)).shape == (6, 4)


@every_family
@with_context
def test_expanding_draws_anew_and_scores_the_same(
    family: str, context_features: int, float64: Any
) -> None:
    flow = bent(3, context_features, family)
    q = flow(context_of(flow, 4))
    particles = q.expand((6, 4))
    draws = particles()
    assert len(draws.unique(dim=0)) == 6
    torch.testing.assert_close(particles.log_prob(draws), q.log_prob(draws))


def test_particles_are_independent(float64: Any) -> None:
    """20000 pairs: a correlation has standard error 0.007."""
    first, second = bent(2, 0, "iaf")().expand((2, 20000))().detach()
    correlations = torch.corrcoef(torch.cat([first, second], -1).T)[:2, 2:]
    assert (correlations.abs() < 0.035).all()


@every_family
def test_expanding_runs_no_network(family: str) -> None:
    flow = bent(3, 2, family, num_transforms=2)
    runs: list[nn.Module] = []
    for module in flow.modules():
        if isinstance(module, nn.Sequential):
            module.register_forward_hook(lambda network, *_: runs.append(network))
    q = flow(torch.randn(4, 2))
    made = len(runs)
    particles = q.expand((6, 4))
    assert len(runs) == made
    particles.log_prob(particles())
    passes = 1 if family.startswith("i") else 3 + 1  # to draw, and for log det
    assert len(runs) - made == 2 * passes


@every_family
def test_draws_are_consistent_under_autocast(family: str) -> None:
    """Value and density in float32: rounding of the inverse, not bfloat16's 0.01."""
    flow, context = bent(4, 3, family), torch.randn(20, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = flow(context)
        draw = q()
        again, other = q.log_prob(draw), q.log_prob(draw.clone())
    exact = flow(context.float()).log_prob(draw)
    assert {draw.dtype, again.dtype, other.dtype} == {torch.float32}
    torch.testing.assert_close(again, exact, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other, exact, atol=1e-4, rtol=1e-4)


def test_importing_leaves_argument_checks_on() -> None:
    code = (
        "import torch.distributions as d; before = d.Distribution._validate_args;"
        "import pyro_lvm.distributions.flow;"
        "raise SystemExit(before is not True or d.Distribution._validate_args is not True)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_are_checked() -> None:
    q = ConditionalFlow(3)()
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.tensor([0.0, float("nan"), 0.0]))
    with pytest.raises(ValueError, match="shape"):
        q.expand((5,)).log_prob(torch.zeros(4, 3))


# Its gradient, in the value and in the parameters.


@every_family
@with_context
def test_scoring_a_draw_again_is_exact(family: str, context_features: int, float64: Any) -> None:
    """Same value and same total derivative as by inverting a view of it."""
    flow = bent(3, context_features, family)
    results = []
    for again in (lambda z: z, lambda z: z.view_as(z)):
        pyro.set_rng_seed(1)
        q = flow(None if context_features == 0 else torch.ones(4, 3)).expand((6, 4))
        score = q.log_prob(again(q()))
        results.append((score.detach(), gradients(score, flow)))
    torch.testing.assert_close(results[0], results[1])


@every_family
def test_gradient_at_fixed_values_is_the_direct_one(family: str, float64: Any) -> None:
    """Of ``detach()``, of ``sample()`` and of a draw without gradients: finite differences."""
    flow = bent(2, 3, family)
    context = torch.ones(4, 3)

    def check_direct(q: FlowDistribution, value: Tensor) -> None:
        weight = flow.flow.transform.transform.transforms[-1].hyper[0].weight
        (gradient,) = torch.autograd.grad(q.log_prob(value).sum(), weight)
        step = 1e-6 * torch.randn_like(weight)
        sums = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step)
                sums.append(flow(context).log_prob(value.clone()).sum())
                weight.sub_(sign * step)
        torch.testing.assert_close((gradient * step).sum(), (sums[0] - sums[1]) / 2)

    def without_gradient(q: FlowDistribution) -> Tensor:
        with torch.no_grad():
            return q.rsample()

    for draw in (
        lambda q: q().detach(),
        lambda q: q.sample(),
        lambda q: q.has_rsample_(False)(),
        without_gradient,
    ):
        q = flow(context)
        check_direct(q, draw(q))


@every_family
def test_gradient_in_the_value(family: str, float64: Any) -> None:
    flow = bent(2, 3, family)
    q = flow(torch.ones(3))
    value = q.sample().requires_grad_()
    assert torch.autograd.gradcheck(q.log_prob, value)
