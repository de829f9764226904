"""Imputations against exact conditional distributions: Gaussian, mixed columns, mixtures."""

from math import sqrt
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from imputed_models import (
    MIXED,
    NAN,
    X,
    conditional,
    effective,
    linear,
    mixed_model,
    posterior_guide,
    prior_guide,
    rough_guide,
)
from pyro import poutine
from torch import Tensor

import pyro_lvm
from pyro_lvm.diagnostics import impute
from pyro_lvm.errors import DensityError, ProgramError, PyroLVMError
from pyro_lvm.guides import SemiImplicitGuide
from pyro_lvm.missing import Incomplete
from pyro_lvm.models import VAE, FactorAnalysis, GaussianMixture, ProbabilisticPCA

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("kind", [FactorAnalysis, ProbabilisticPCA])
@pytest.mark.parametrize("chunk_size", [None, 700])
@torch.no_grad()
def test_draws_have_the_exact_conditional_moments(kind: Any, chunk_size: int | None) -> None:
    model = linear(kind)
    count = 10_000
    imputed = impute(
        Incomplete(model),
        rough_guide(model),
        X,
        num_samples=count,
        num_particles=2 * count,
        chunk_size=chunk_size,
    )
    for i, row in enumerate(X):
        mean, covariance = conditional(model, row)
        size = effective(imputed, i, count)
        assert size > 0.3 * count
        draws = imputed.values[:, i, row.isnan()]
        variances = covariance.diagonal()
        assert ((draws.mean(0) - mean).abs() < 4 * (variances / size).sqrt()).all()
        error = ((variances[:, None] * variances + covariance**2) / size).sqrt()
        assert ((draws.T.cov().reshape(covariance.shape) - covariance).abs() < 4 * error).all()
        assert (error < 0.1 * variances.max()).all()


@pytest.mark.parametrize("chunk_size", [None, 700])
@torch.no_grad()
def test_single_imputation_is_the_exact_conditional_mean(chunk_size: int | None) -> None:
    model = linear(FactorAnalysis)
    programs = Incomplete(model), rough_guide(model), X
    imputed = impute(*programs, num_particles=20_000, method="mean", chunk_size=chunk_size)
    assert imputed.values.shape == (1, *X.shape)
    for i, row in enumerate(X):
        mean, covariance = conditional(model, row)
        error = (covariance.diagonal() / imputed.effective_sample_size[i]).sqrt()
        assert ((imputed.values[0, i, row.isnan()] - mean).abs() < 4 * error).all()
        assert (error < 0.05).all()


@pytest.mark.parametrize("method", ["sir", "mean"])
@torch.no_grad()
def test_observed_entries_stay_bit_for_bit(method: str) -> None:
    model = linear(FactorAnalysis)
    imputed = impute(Incomplete(model), rough_guide(model), X, method=method, num_particles=50)
    assert torch.equal(imputed.observed, ~X.isnan())
    assert imputed.values.isfinite().all()
    observed = imputed.values[:, imputed.observed]
    assert torch.equal(observed, X[imputed.observed].expand_as(observed))
    assert imputed.effective_sample_size is not None
    assert imputed.khat is not None
    assert imputed.effective_sample_size.shape == imputed.khat.shape == (len(X),)
    assert imputed.acceptance is None


@torch.no_grad()
def test_exact_guide_has_equal_weights() -> None:
    """Also for a row without any observed entry, whose posterior is the prior."""
    model = linear(FactorAnalysis)

    imputed = impute(Incomplete(model), posterior_guide(model), X, num_particles=100)
    torch.testing.assert_close(imputed.effective_sample_size, torch.full((3,), 100.0))


def quadrature(model: VAE, row: Tensor) -> tuple[Tensor, Any]:
    """Weights ``(Z,)`` of a grid of latents given the observed entries, and its columns."""
    grid = torch.linspace(-8, 8, 4001).unsqueeze(-1)
    columns = model.likelihood(model.decoder(grid))
    filled = row.nan_to_num(0.0).expand(len(grid), 4)
    scores = torch.where(row.isnan(), 0.0, columns.log_prob(filled)).sum(-1)
    return torch.softmax(scores - grid[:, 0] ** 2 / 2, 0), columns


@torch.no_grad()
def test_mixed_columns_against_quadrature() -> None:
    model = mixed_model()
    programs = Incomplete(model), prior_guide, MIXED
    count = 4000
    drawn = impute(*programs, num_samples=count, num_particles=2 * count)
    guess = impute(*programs, num_particles=2 * count, method="mean").values[0]
    for i, row in enumerate(MIXED):
        weights, columns = quadrature(model, row)
        size = effective(drawn, i, count)
        for j in row.isnan().nonzero().flatten().tolist():
            values = drawn.values[:, i, j]
            if j == 0:
                mean, square = weights @ columns.mean[:, 0], weights @ columns.mean[:, 0] ** 2
                variance = square - mean**2 + weights @ columns.variance[:, 0]
                error = sqrt(variance / size)
                assert abs(values.mean() - mean) < 4 * error
                assert abs(guess[i, j] - mean) < 4 * error
                continue
            exact = []
            for c in range([0, 2, 3, 4][j]):
                value = torch.zeros(4)
                value[j] = c
                exact.append(weights @ columns.log_prob(value.expand(4001, 4))[:, j].exp())
            probabilities = torch.stack(exact)
            assert abs(probabilities.sum() - 1) < 1e-8
            error = (probabilities * (1 - probabilities) / size).sqrt()
            shares = torch.stack([(values == c).double().mean() for c in range(len(exact))])
            assert ((shares - probabilities).abs() < 4 * error + 1e-12).all()
            best = probabilities > probabilities.max() - 4 * error.max()
            assert best[guess[i, j].long()], "or one that these draws cannot tell from it"


@torch.no_grad()
def test_mixture_summed_out_by_enumeration() -> None:
    """Weights are exact, classes drawn from their posterior given the observed entries."""
    model = GaussianMixture(3, 2, enumerate_latents=True)
    model.components.loc.copy_(torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, -3.0]]))
    x = torch.tensor([[0.3, NAN, NAN], [NAN, NAN, NAN]])
    columns = model.components(torch.arange(2)).base_dist
    scores = columns.log_prob(x.nan_to_num(0.0).unsqueeze(1))
    log_joint = torch.where(x.isnan().unsqueeze(1), 0.0, scores).sum(-1)  # (B, 2)
    mean = torch.softmax(log_joint, -1) @ model.components.loc
    variance = columns.variance.amax() + 4.0
    imputed = impute(Incomplete(model), lambda x: None, x, num_samples=4000, num_particles=8000)
    error = sqrt(variance * (1 / 4000 + 1 / 8000))
    assert ((imputed.values.mean(0) - mean)[x.isnan()].abs() < 4 * error).all()
    torch.testing.assert_close(imputed.effective_sample_size, torch.full((2,), 8000.0))


@pytest.mark.parametrize("kind", ["dist.mask", "poutine.mask"])
def test_masks_of_pyro(kind: str) -> None:
    """A mask in the program, of entries or of whole data, and any number underneath."""
    x = torch.tensor([[0.5, 9.0], [9.0, 9.0]])
    entries = torch.tensor([[True, False], [False, False]])
    rows = torch.tensor([True, False])

    def model(x: Tensor) -> None:
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            fn = dist.Normal(z.unsqueeze(-1), torch.full((2,), 0.1))
            if kind == "dist.mask":
                pyro.sample("x", fn.mask(entries).to_event(1), obs=x)
            else:
                with poutine.mask(mask=rows):
                    pyro.sample("x", fn.to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    imputed = impute(model, guide, x, num_samples=50)
    expected = entries if kind == "dist.mask" else rows.unsqueeze(-1).expand(2, 2)
    assert torch.equal(imputed.observed, expected)
    assert torch.equal(imputed.values[:, expected], x[expected].expand(50, -1))
    assert (imputed.values[:, ~expected] != 9.0).all()


def test_global_latent_joins_the_data() -> None:
    """One weight for all data: the exact mean given all of them."""
    x = torch.tensor([1.0, NAN, 2.0, NAN])

    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))

    imputed = impute(Incomplete(model), guide, x, num_samples=4000, num_particles=8000)
    assert imputed.khat is not None
    assert imputed.khat.shape == ()
    assert imputed.effective_sample_size is not None
    size = float(1 / (1 / 4000 + 1 / imputed.effective_sample_size))
    error = sqrt((1 + 1 / 3) / size)
    assert ((imputed.values[:, x.isnan()].mean(0) - 1.0).abs() < 4 * error).all()
    guess = impute(Incomplete(model), guide, x, num_particles=8000, method="mean")
    assert guess.effective_sample_size is not None
    error = sqrt(1 / 3 / float(guess.effective_sample_size))
    assert ((guess.values[0, x.isnan()] - 1.0).abs() < 4 * error).all()


@pytest.mark.parametrize("method", ["sir", "mean"])
def test_draws_of_no_weight(method: str) -> None:
    """One at a time, with most outside the prior: none of those is taken."""
    x = torch.full((3,), NAN)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            inside = torch.where(z > 0.5, 0.0, -torch.inf)
            pyro.factor("positive", inside)
            pyro.sample("x", dist.Normal(z, 1e-6), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    count = {"num_samples": 20, "num_particles": 60, "chunk_size": 1}
    imputed = impute(Incomplete(model), guide, x, method=method, **count)  # type: ignore[arg-type]
    assert (imputed.values > 0.499).all()
    assert imputed.values.isfinite().all()


@torch.no_grad()
def test_semi_implicit_guides() -> None:
    """Weights by averaged mixing draws; a chain has no density to accept by."""
    model = linear(FactorAnalysis)
    x = model.mean.detach() + torch.tensor([[0.3, NAN, -0.5, NAN]])  # where the guide starts
    guide = SemiImplicitGuide(in_features=4, latent_features=2, hidden=(8,), noise_features=2)
    programs = Incomplete(model), lambda x: guide(x.nan_to_num(0.0)), x
    mean, covariance = conditional(model, x[0])
    count = 1000
    imputed = impute(*programs, num_samples=count, num_particles=2 * count)
    size = effective(imputed, 0, count)
    assert size > 0.05 * count
    error = (covariance.diagonal() / size).sqrt()
    assert ((imputed.values[:, 0, x[0].isnan()].mean(0) - mean).abs() < 4 * error).all()
    with explained(DensityError, "guide", "a density", "estimated", "method='sir'"):
        impute(*programs, method="mh")


# Names and mistakes.


def test_name_at_the_top() -> None:
    assert pyro_lvm.impute is impute


def test_site_that_is_not_observed() -> None:
    model = linear(FactorAnalysis)
    with explained(ProgramError, "site", "one of ['x']", "'y'", "site="):
        impute(Incomplete(model), rough_guide(model), X, site="y")


def test_unknown_method() -> None:
    model = linear(FactorAnalysis)
    with explained(
        ProgramError, "method", "['sir', 'mean', 'mh', 'gibbs']", "'mode'", "method='sir'"
    ):
        impute(Incomplete(model), rough_guide(model), X, method="mode")


@pytest.mark.parametrize("name", ["num_samples", "num_particles"])
def test_counts(name: str) -> None:
    model = linear(FactorAnalysis)
    with pytest.raises(PyroLVMError, match=r"expected an integer >= 1, got 0"):
        impute(Incomplete(model), rough_guide(model), X, **{name: 0})  # type: ignore[arg-type]
