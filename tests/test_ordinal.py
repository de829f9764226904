"""Ordered classes: their probabilities are differences of the cumulative ones."""

import pandas as pd
import pytest
import torch
from explained import explained

from pyro_lvm.distributions import OrdinalLikelihood
from pyro_lvm.errors import ProgramError
from pyro_lvm.missing import Schema


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


def test_ordinal_tails_in_single_precision() -> None:
    """Against differences in float64, where these still have their digits."""
    likelihood = OrdinalLikelihood(1, 4)
    likelihood.cut_points = torch.tensor([[-30.0, -29.999, 1.0]])
    output = torch.linspace(-30.0, 30.0, 61).unsqueeze(-1)
    wide = likelihood.cut_points.double() - output.double().unsqueeze(-1)
    cumulative = torch.nn.functional.pad(wide.sigmoid(), (1, 1))
    cumulative[..., -1] = 1.0
    exact = cumulative.diff().log()
    exact[..., 3] = torch.nn.functional.logsigmoid(-wide[..., 2])
    found = likelihood(output).logits.double()
    told = exact.exp() > 1e-9  # what float64 tells of a difference
    rounding = 60 * torch.finfo(torch.float32).eps  # of distances up to 60
    torch.testing.assert_close(found[told], exact[told], rtol=0, atol=rounding)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(61, 1).double())


def test_cut_points_of_a_class_never_seen_may_meet() -> None:
    likelihood = OrdinalLikelihood(1, 4)
    points = likelihood.cut_points_unconstrained
    points.data = torch.tensor([[0.5, -40.0, 0.4]])  # the first, and logarithms of distances
    output = torch.tensor([[0.3], [-40.0], [40.0]], requires_grad=True)
    score = likelihood(output).log_prob(torch.tensor([[0.0], [2.0], [3.0]])).sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(score, (points, output)))
    assert likelihood(output).probs[:, 0, 1].max() < 1e-6


@pytest.mark.usefixtures("float64")
def test_ordinal_starts_at_shares_of_the_classes() -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, torch.nan], [0.0, torch.nan]])
    likelihood = OrdinalLikelihood.of(x, 4)
    shares = torch.tensor([[3.5, 0.5, 1.5, 0.5], [0.5, 2.5, 0.5, 0.5]])
    torch.testing.assert_close(
        likelihood(torch.zeros(2)).probs, shares / shares.sum(-1, keepdim=True)
    )
    rare = OrdinalLikelihood(1, 4, torch.tensor([1.0, 1e-9, 1e-9, 1.0]))
    assert (rare.cut_points.diff() > 0).all()


def test_ordered_columns_of_a_table_start_at_their_shares() -> None:
    kinds = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame({"a": ["low", "low", "high"], "b": ["mid", None, None]}).astype(kinds)
    (part,) = Schema.of(frame).likelihood().parts
    expected = OrdinalLikelihood.of(Schema.of(frame).encode(frame), 3)
    torch.testing.assert_close(part.cut_points, expected.cut_points)


def test_ordinal_needs_two_classes() -> None:
    with explained(ProgramError, "num_classes", "at least 2", "1", "Leave out"):
        OrdinalLikelihood(1, 1)
