"""Imputations by chains and by sweeps against exact conditional distributions."""

from functools import partial
from math import sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from imputed_models import MIXED, NAN, X, conditional, linear, mixed_model, prior_guide, rough_guide
from torch import Tensor

from pyro_lvm.diagnostics import GibbsSweeps, MetropolisWithinGibbs, impute
from pyro_lvm.errors import ProgramError, PyroLVMError
from pyro_lvm.guides import GibbsConditionals, GibbsGuide
from pyro_lvm.missing import Incomplete
from pyro_lvm.models import FactorAnalysis, GaussianMixture

pytestmark = pytest.mark.usefixtures("float64")
LAST = MetropolisWithinGibbs(num_chains=1, num_warmup=60, thin=1)


@torch.no_grad()
def test_chains_have_the_exact_conditional_moments() -> None:
    """The ends of independent chains, many of each row; the guide is wrong on purpose."""
    model, count = linear(FactorAnalysis), 5000
    data = X.repeat_interleave(count, 0)
    imputed = impute(Incomplete(model), rough_guide(model), data, num_samples=1, method=LAST)
    assert imputed.khat is None
    assert imputed.acceptance is not None
    assert ((imputed.acceptance > 0.1) & (imputed.acceptance < 1.0)).double().mean() > 0.99
    for row, draws in zip(X, imputed.values[0].split(count), strict=True):
        mean, covariance = conditional(model, row)
        centred = draws[:, row.isnan()] - mean
        variances = covariance.diagonal()
        assert (centred.mean(0).abs() < 4 * (variances / count).sqrt()).all()
        error = ((variances[:, None] * variances + covariance**2) / count).sqrt()
        assert ((centred.T @ centred / count - covariance).abs() < 4 * error).all()


@torch.no_grad()
def test_chains_of_a_mixture_summed_out() -> None:
    """No latent is left to propose: Gibbs moves of the class and the entries, all accepted."""
    model, count = GaussianMixture(3, 2, enumerate_latents=True), 4000
    model.components.loc.copy_(torch.tensor([[-0.5, 0.0, 1.0], [0.5, 1.0, -0.5]]))
    x = torch.tensor([[0.3, NAN, NAN]]).expand(count, 3)
    columns = model.components(torch.arange(2)).base_dist
    scores = columns.log_prob(x[:1].nan_to_num(0.0).unsqueeze(1))[..., 0]
    mean = torch.softmax(scores, -1) @ model.components.loc
    imputed = impute(Incomplete(model), lambda x: None, x, num_samples=1, method=LAST)
    assert imputed.acceptance is not None
    assert (imputed.acceptance == 1).all()
    draws = imputed.values[0, :, 1:]
    error = draws.std(0) / sqrt(count)
    assert ((draws.mean(0) - mean[0, 1:]).abs() < 4 * error).all()


def test_chains_of_a_mixed_table() -> None:
    """Data as a keyword, classes and counts among the columns; observed entries stay."""
    short, programs = MetropolisWithinGibbs(num_warmup=3, thin=1), (mixed_model(), prior_guide)
    imputed = impute(Incomplete(programs[0]), programs[1], num_samples=4, method=short, x=MIXED)
    assert imputed.values.shape == (4, *MIXED.shape)
    assert imputed.num_chains == 2
    observed = imputed.values[:, imputed.observed]
    assert torch.equal(observed, MIXED[~MIXED.isnan()].expand_as(observed))


def test_chains_need_data_with_nan() -> None:
    x, observed = torch.tensor([[0.5, 9.0]]), torch.tensor([[True, False]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            fn = dist.Normal(z.unsqueeze(-1), torch.full((2,), 0.1))
            pyro.sample("x", fn.mask(observed).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 1):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    for data in (x, torch.where(observed, x, NAN)):
        with explained(ProgramError, "'x' under method='mh'", "NaN", "another way", "Incomplete"):
            impute(model, guide, data, method="mh")


def test_number_of_imputations_of_chains() -> None:
    model = linear(FactorAnalysis)
    with explained(PyroLVMError, "num_samples", "multiple of num_chains=2", "3", "num_chains=1"):
        impute(Incomplete(model), rough_guide(model), X, num_samples=3, method="mh")
    with pytest.raises(PyroLVMError, match=r"expected an integer >= 1, got 0"):
        MetropolisWithinGibbs(thin=0)


@torch.no_grad()
def test_sweeps_of_exact_conditionals() -> None:
    """By name, for a guide that knows two correlated numbers; the model is left aside."""
    conditionals = GibbsConditionals(2, hidden=())
    exact = dist.Normal(torch.tensor(0.8), torch.tensor(0.6))
    conditionals.forward = partial(_normal_given, 0.8)  # type: ignore[method-assign]
    x = torch.tensor([[1.0, NAN], [NAN, NAN]]).repeat_interleave(2000, 0)
    imputed = impute(None, GibbsGuide(conditionals), x, num_samples=2, method="gibbs")
    assert imputed.num_chains == 2
    assert torch.equal(imputed.values[:, imputed.observed], x[imputed.observed].expand(2, -1))
    known, unknown = imputed.values[:, :2000, 1].flatten(), imputed.values[0, 2000:]
    error = exact.scale / sqrt(4000)
    assert abs(known.mean() - exact.loc) < 4 * error
    assert abs(known.std() - exact.scale) < 4 * error
    assert abs(unknown.T.corrcoef()[0, 1] - 0.8) < 4 * (1 - 0.8**2) / sqrt(2000)


def _normal_given(correlation: float, x: Tensor, column: Tensor) -> dist.Normal:
    other = x.gather(-1, 1 - column.unsqueeze(-1)).squeeze(-1)
    known = ~other.isnan()
    scale = torch.where(known, sqrt(1 - correlation**2), 1.0)
    return dist.Normal(torch.where(known, correlation * other, 0.0), scale)


def test_sweeps_need_conditionals() -> None:
    model = linear(FactorAnalysis)
    with explained(ProgramError, "guide", "conditionals", "without", "GibbsGuide"):
        impute(Incomplete(model), rough_guide(model), X, method="gibbs")
    with pytest.raises(PyroLVMError, match=r"expected an integer >= 1, got 0"):
        GibbsSweeps(thin=0)
