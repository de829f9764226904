"""Ordered classes: their probabilities are differences of the cumulative ones."""

import pytest
import torch
from explained import explained

from pyro_lvm.distributions import OrdinalLikelihood
from pyro_lvm.errors import ProgramError


@pytest.mark.usefixtures("float64")
def test_ordinal_probabilities() -> None:
    likelihood = OrdinalLikelihood(2, 4)
    likelihood.cut_points = torch.tensor([[-1.0, 0.5, 2.0], [-3.0, -2.9, 4.0]])
    output = torch.randn(5, 2, requires_grad=True)
    cumulative = torch.sigmoid(likelihood.cut_points - output.unsqueeze(-1))
    edges = torch.cat([torch.zeros(5, 2, 1), cumulative, torch.ones(5, 2, 1)], -1)
    torch.testing.assert_close(likelihood(output).probs, edges.diff())


def test_ordinal_gradients_stay_finite() -> None:
    likelihood = OrdinalLikelihood(1, 4)
    output = torch.tensor([[-200.0], [0.0], [200.0]], requires_grad=True)
    likelihood(output).log_prob(torch.tensor([[3.0], [1.0], [0.0]])).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert all(bool(p.grad.isfinite().all()) for p in likelihood.parameters())


def test_ordinal_needs_two_classes() -> None:
    with explained(ProgramError, "num_classes", "at least 2", "1", "Leave out"):
        OrdinalLikelihood(1, 1)
