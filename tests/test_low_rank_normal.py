"""The low-rank Normal against a dense one, with frames left out, in float64.

Tolerances of 1e-10 and below are rounding; the larger ones are of gradients.
"""

import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.distributions import LowRankNormal
from pyro_lvm.errors import ProgramError

pytestmark = pytest.mark.usefixtures("float64")

PARTICLES, BATCH, FRAMES, RANK = 3, 4, 12, 2


def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loc = torch.randn(PARTICLES, BATCH, FRAMES)
    scale, columns = torch.rand(BATCH, 1) + 0.2, torch.randn(BATCH, FRAMES, RANK)
    return loc, scale, columns, torch.randn(BATCH, FRAMES)


def covariance(scale: Tensor, columns: Tensor) -> Tensor:
    return torch.diag_embed(scale.expand(BATCH, FRAMES) ** 2) + columns @ columns.mT


def test_density_is_the_dense_one() -> None:
    loc, scale, columns, x = parts()
    dense = dist.MultivariateNormal(loc, covariance(scale, columns))
    found = LowRankNormal(loc, scale, columns)
    torch.testing.assert_close(found.log_prob(x), dense.log_prob(x), rtol=1e-12, atol=1e-12)
    assert found.batch_shape == (PARTICLES, BATCH)
    torch.testing.assert_close(found.variance, dense.variance)


def test_frames_that_are_missing_are_left_out() -> None:
    loc, scale, columns, x = parts()
    observed = torch.rand(BATCH, FRAMES) < 0.6
    found = LowRankNormal(loc, scale, columns, observed).log_prob(
        torch.where(observed, x, torch.nan)
    )
    for row, seen in enumerate(observed):
        dense = covariance(scale, columns)[row][seen][:, seen]
        exact = dist.MultivariateNormal(loc[:, row, seen], dense).log_prob(x[row, seen])
        torch.testing.assert_close(found[:, row], exact, rtol=1e-12, atol=1e-12)


def test_nothing_observed_has_density_one() -> None:
    loc, scale, columns, x = parts()
    nothing = torch.zeros(BATCH, FRAMES, dtype=torch.bool)
    assert not LowRankNormal(loc, scale, columns, nothing).log_prob(x * torch.nan).any()


def test_missing_frames_have_clean_gradients() -> None:
    loc, scale, columns, x = parts()
    observed = torch.rand(BATCH, FRAMES) < 0.6
    leaves = [p.requires_grad_() for p in (loc, scale, columns)]
    densities = [
        LowRankNormal(*leaves, observed).log_prob(torch.where(observed, x, fill)).sum()
        for fill in (torch.nan, 0.0)
    ]
    hidden, zero = (torch.autograd.grad(density, leaves) for density in densities)
    for one, other in zip(hidden, zero, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


def test_gradients_are_those_of_the_dense_density() -> None:
    loc, scale, columns, x = parts()
    leaves = [p.requires_grad_() for p in (loc, scale, columns)]
    dense = dist.MultivariateNormal(loc, covariance(scale, columns))
    exact = torch.autograd.grad(dense.log_prob(x).sum(), leaves)
    found = torch.autograd.grad(LowRankNormal(*leaves).log_prob(x).sum(), leaves)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_draws_have_the_covariance() -> None:
    _, scale, columns, _ = parts()
    size = 100_000
    x = LowRankNormal(torch.zeros(FRAMES), scale[0], columns[0]).rsample((size,))
    exact = covariance(scale, columns)[0]
    variance = exact.diagonal()
    error = ((exact**2 + variance[:, None] * variance) / size).sqrt()
    assert ((x.T.cov() - exact).abs() < 5 * error).all()
    assert (x.mean(0).abs() < 5 * (variance / size).sqrt()).all()


def test_narrow_numbers_keep_their_digits() -> None:
    """A drift 300 times the noise: its quadratic forms, 1e8 a trace, are not subtracted."""
    torch.manual_seed(1)
    columns = 3 * torch.randn(BATCH, 1000, RANK)
    wide = LowRankNormal(torch.zeros(BATCH, 1000), torch.full((BATCH, 1), 0.01), columns)
    x = wide.rsample().float()
    narrow = LowRankNormal(wide.loc.float(), wide.scale.float(), columns.float()).log_prob(x)
    torch.testing.assert_close(narrow.double(), wide.log_prob(x.double()), rtol=0, atol=0.01)


def test_denoised_is_the_conditional_mean() -> None:
    loc, scale, columns, x = parts()
    observed = torch.rand(BATCH, FRAMES) < 0.6
    found = LowRankNormal(loc, scale, columns, observed).denoised(
        torch.where(observed, x, torch.nan)
    )
    for row, seen in enumerate(observed):
        both = columns[row] @ columns[row].T
        gain = both[:, seen] @ torch.linalg.inv(covariance(scale, columns)[row][seen][:, seen])
        exact = loc[:, row] + (x[row, seen] - loc[:, row, seen]) @ gain.T
        torch.testing.assert_close(found[:, row], exact, rtol=0, atol=1e-12)


def test_expanding_keeps_the_density() -> None:
    loc, scale, columns, x = parts()
    alone = LowRankNormal(loc[0], scale, columns)
    wide = alone.expand((5, BATCH))
    assert wide.batch_shape == (5, BATCH)
    torch.testing.assert_close(wide.log_prob(x), alone.log_prob(x).expand(5, BATCH))
    assert wide.rsample((2,)).shape == (2, 5, BATCH, FRAMES)


def test_columns_of_another_length() -> None:
    loc, scale, columns, _ = parts()
    where = "columns", "12 rows", "shape (4, 11, 2)", "Give columns the shape (*batch, T, R)"
    with explained(ProgramError, *where):
        LowRankNormal(loc, scale, columns[:, 1:])
