"""Straight-through distributions: the mass of the discrete one, gradients of the relaxed one."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from bits import MAX_Z

from pyro_lvm.distributions import StraightThroughBernoulli, StraightThroughOneHotCategorical

STRAIGHT = {
    "bernoulli": lambda logits: StraightThroughBernoulli(0.5, logits),
    "categorical": lambda logits: StraightThroughOneHotCategorical(0.5, logits),
}
PLAIN = {
    "bernoulli": lambda logits: dist.Bernoulli(logits=logits),
    "categorical": lambda logits: dist.OneHotCategorical(logits=logits),
}
each_family = pytest.mark.parametrize("family", STRAIGHT)


@each_family
def test_straight_through_has_the_exact_mass_and_values(family: str, float64: Any) -> None:
    logits = torch.randn(5, 4)
    ours, exact = STRAIGHT[family](logits), PLAIN[family](logits)
    z = ours((20000,))
    torch.testing.assert_close(ours.log_prob(z), exact.log_prob(z), rtol=1e-12, atol=1e-12)
    assert z.unique().tolist() == [0.0, 1.0]
    error = (z.mean(0) - exact.mean).abs() / (exact.variance / 20000).sqrt()
    assert error.max() < MAX_Z


@each_family
def test_straight_through_gradients(family: str, float64: Any) -> None:
    """Of a draw: the relaxed draw's, by hand from the same noise. Of log-mass: its slope."""
    logits = torch.randn(5, 4, requires_grad=True)
    fn, weights = STRAIGHT[family](logits), torch.randn(5, 4)
    torch.manual_seed(1)
    (found,) = torch.autograd.grad((weights * fn.rsample()).sum(), logits)
    torch.manual_seed(1)
    shape = (2, 5, 4) if family == "bernoulli" else (1, 5, 4)
    noise = -torch.stack([torch.empty(5, 4).exponential_() for _ in range(shape[0])]).log()
    normalised = logits if family == "bernoulli" else logits.log_softmax(-1)
    scores = (normalised + noise[0] - (noise[1] if len(noise) == 2 else 0.0)) / 0.5
    relaxed = torch.sigmoid(scores) if family == "bernoulli" else torch.softmax(scores, -1)
    (expected,) = torch.autograd.grad((weights * relaxed).sum(), logits)
    torch.testing.assert_close(found, expected)

    z = fn.sample().requires_grad_()
    (slope,) = torch.autograd.grad(fn.log_prob(z).sum(), z)
    torch.testing.assert_close(slope, normalised.detach())


@each_family
def test_straight_through_expands_and_masks(family: str) -> None:
    fn = STRAIGHT[family](torch.randn(5, 4, requires_grad=True))
    wide = fn.expand((3, *fn.batch_shape))
    assert wide.has_rsample
    assert wide.temperature == 0.5
    assert wide.batch_shape == (3, *fn.batch_shape)
    assert wide.rsample((2,)).shape == (2, 3, 5, 4)
    assert wide.rsample().requires_grad
    event = fn.to_event(len(fn.batch_shape))
    assert event.has_rsample
    assert event.expand((7,)).rsample().shape == (7, 5, 4)
    assert not fn.mask(False).log_prob(fn.sample()).any()


def test_pyros_straight_through_scores_a_density() -> None:
    """Its bound at the exact posterior is no constant, and is not on the discrete evidence."""
    logits = torch.zeros(3)
    z = torch.tensor([0.0, 1.0, 0.0])
    ours = StraightThroughOneHotCategorical(0.5, logits)
    torch.testing.assert_close(ours.log_prob(z), -torch.tensor(3.0).log())
    theirs = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.5), logits=logits)
    draws = theirs.rsample((200,))
    scores = torch.stack([theirs.log_prob(theirs.rsample()) for _ in range(200)])
    assert draws.unique().tolist() == [0.0, 1.0]
    assert scores.std() > 0.3
