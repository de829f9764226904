"""The fused log-probability is the distribution's own, errors included."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.scoring import log_prob

BATCH, PIXELS = 4, 7
PROGRAMS: dict[str, Callable[[Tensor], Any]] = {
    "logits": lambda v: dist.Bernoulli(logits=v).to_event(1),
    "probs": lambda v: dist.Bernoulli(probs=v.sigmoid()).to_event(1),
    "two event dims": lambda v: dist.Bernoulli(logits=v).to_event(2),
    "no event dims": lambda v: dist.Bernoulli(logits=v),
    "masked within": lambda v: dist.Bernoulli(logits=v).mask(v > 0).to_event(1),
    "masked": lambda v: dist.Bernoulli(logits=v).to_event(1).mask(v[..., 0] > 0),
    "another distribution": lambda v: dist.Laplace(v, 1.0).to_event(1),
}
NORMALS: dict[str, Callable[[Tensor], Any]] = {
    "loc": lambda v: dist.Normal(v, 0.7).to_event(1),
    "scale": lambda v: dist.Normal(0.3, v.exp()).to_event(1),
    "two event dims": lambda v: dist.Normal(v, v.exp()).to_event(2),
    "no event dims": lambda v: dist.Normal(v, v.exp()),
    "expanded": lambda v: dist.Normal(v.mean(), v.exp().mean()).expand(v.shape).to_event(1),
    "masked within": lambda v: dist.Normal(v, 0.7).mask(v > 0).to_event(1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("particles", [(), (5,)])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_value_and_gradient_are_bit_equal(
    program: Callable[[Tensor], Any], particles: tuple[int, ...], dtype: torch.dtype
) -> None:
    parameter = torch.randn(*particles, BATCH, PIXELS, dtype=dtype, requires_grad=True)
    data = torch.rand(BATCH, PIXELS, dtype=dtype).round()
    ours, theirs = log_prob(program(parameter), data), program(parameter).log_prob(data)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    (our_gradient,) = torch.autograd.grad(ours, parameter, weights)
    (their_gradient,) = torch.autograd.grad(theirs, parameter, weights)
    assert torch.equal(our_gradient, their_gradient)


@pytest.mark.parametrize("particles", [(), (5,)])
@pytest.mark.parametrize("program", NORMALS.values(), ids=NORMALS)
def test_normal_is_equal_but_for_rounding(
    program: Callable[[Tensor], Any], particles: tuple[int, ...]
) -> None:
    parameter = torch.randn(*particles, BATCH, PIXELS, dtype=torch.float64, requires_grad=True)
    data = torch.randn(BATCH, PIXELS, dtype=torch.float64)
    ours, theirs = log_prob(program(parameter), data), program(parameter).log_prob(data)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    weights = torch.randn_like(ours)
    (our_gradient,) = torch.autograd.grad(ours, parameter, weights)
    (their_gradient,) = torch.autograd.grad(theirs, parameter, weights)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("particles", [(), (5,)])
@pytest.mark.parametrize("program", (NORMALS | PROGRAMS).values(), ids=NORMALS | PROGRAMS)
def test_held_distribution_passes_the_derivative_of_the_value_alone(
    program: Callable[[Tensor], Any], particles: tuple[int, ...]
) -> None:
    parameter = torch.randn(*particles, BATCH, PIXELS, dtype=torch.float64, requires_grad=True)
    data = torch.rand(BATCH, PIXELS, dtype=torch.float64).round()
    value = data.expand_as(parameter).clone().requires_grad_()
    fn = program(parameter)
    whole, held = log_prob(fn, value), log_prob(fn, value, held=True)
    assert torch.equal(whole, held)
    weights, inputs = torch.randn_like(whole), (parameter, value)
    _, through = torch.autograd.grad(whole, inputs, weights, retain_graph=True)
    direct, path = torch.autograd.grad(held, inputs, weights, allow_unused=True)
    torch.testing.assert_close(path, through)
    assert direct is None or direct.abs().max() < 1e-12


def test_values_are_checked_as_the_distribution_checks_them() -> None:
    logits = torch.zeros(PIXELS)
    outside = torch.full((PIXELS,), 2.0)
    with pytest.raises(ValueError, match="within the support"):
        log_prob(dist.Bernoulli(logits=logits).to_event(1), outside)
    with pytest.raises(ValueError, match="within the support"):
        log_prob(dist.Normal(logits, 1.0).to_event(1), torch.full((PIXELS,), torch.nan))
    unchecked = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
    assert torch.equal(log_prob(unchecked, outside), unchecked.log_prob(outside))
