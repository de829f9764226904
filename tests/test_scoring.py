"""The fused log-probability is the distribution's own, to the last bit, errors included."""

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
    "another distribution": lambda v: dist.Normal(v, 1.0).to_event(1),
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


def test_values_are_checked_as_the_distribution_checks_them() -> None:
    logits = torch.zeros(PIXELS)
    outside = torch.full((PIXELS,), 2.0)
    with pytest.raises(ValueError, match="within the support"):
        log_prob(dist.Bernoulli(logits=logits).to_event(1), outside)
    unchecked = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
    assert torch.equal(log_prob(unchecked, outside), unchecked.log_prob(outside))
