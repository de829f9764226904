"""Imputations against exact conditional distributions: Gaussian, mixed columns, mixtures."""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import arviz
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro import poutine
from torch import Tensor

import pyro_lvm
from pyro_lvm.diagnostics import GibbsSweeps, Imputations, MetropolisWithinGibbs, impute
from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    MixedLikelihood,
    OrdinalLikelihood,
)
from pyro_lvm.errors import DataError, DensityError, ProgramError, PyroLVMError
from pyro_lvm.guides import GibbsConditionals, GibbsGuide, SemiImplicitGuide
from pyro_lvm.missing import Incomplete, Schema
from pyro_lvm.models import VAE, FactorAnalysis, GaussianMixture, ProbabilisticPCA

pytestmark = pytest.mark.usefixtures("float64")

NAN = torch.nan
X = torch.tensor([[0.5, NAN, -1.0, NAN], [NAN, 1.5, 0.3, 0.1], [NAN, NAN, NAN, NAN]])


def linear(kind: Callable[..., Any]) -> Any:
    """A model of four columns and two latents, far from its start."""
    model = kind(in_features=4, latent_features=2)
    with torch.no_grad():
        model.loading.normal_()
        model.mean.normal_()
    model.noise_scale = torch.linspace(0.4, 0.8, len(model.noise_scale))
    return model


def rough_guide(model: Any) -> Callable[[Tensor], None]:
    """The posterior given the observed entries, shifted and twice as wide."""

    def guide(x: Tensor) -> None:
        precision_of_x = torch.where(x.isnan(), 0.0, 1 / model.noise_scale.expand(4) ** 2)
        scaled = model.loading.T * precision_of_x.unsqueeze(-2)  # (B, L, D)
        covariance = (torch.eye(2) + scaled @ model.loading).inverse()
        centred = (x - model.mean).nan_to_num(0.0)
        loc = (covariance @ scaled @ centred.unsqueeze(-1)).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc + 0.1, 2 * covariance))

    return guide


def conditional(model: Any, row: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the missing entries of ``row`` given the others."""
    covariance = model.loading @ model.loading.T + torch.diag(model.noise_scale.expand(4) ** 2)
    m, o = row.isnan(), ~row.isnan()
    gain = covariance[m][:, o] @ covariance[o][:, o].inverse()
    mean = model.mean[m] + gain @ (row - model.mean)[o]
    return mean, covariance[m][:, m] - gain @ covariance[o][:, m]


def effective(imputed: Imputations, row: int, num_samples: int) -> float:
    """Independent draws that are worth as much as resampled ones."""
    assert imputed.effective_sample_size is not None
    return float(1 / (1 / num_samples + 1 / imputed.effective_sample_size[row]))


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

    def guide(x: Tensor) -> None:
        precision_of_x = torch.where(x.isnan(), 0.0, 1 / model.noise_scale**2)
        scaled = model.loading.T * precision_of_x.unsqueeze(-2)
        precision = torch.eye(2) + scaled @ model.loading
        loc = (precision.inverse() @ scaled @ (x - model.mean).nan_to_num(0.0)[..., None])[..., 0]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

    imputed = impute(Incomplete(model), guide, X, num_particles=100)
    torch.testing.assert_close(imputed.effective_sample_size, torch.full((3,), 100.0))


def prior_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def mixed_model() -> VAE:
    """A real column, one of two classes, one of three, one of four ordered; one latent."""
    parts = [
        GaussianLikelihood(1),
        BernoulliLikelihood(1),
        CategoricalLikelihood(1, 3),
        OrdinalLikelihood(1, 4),
    ]
    model = VAE(4, 1, (), MixedLikelihood(parts))
    with torch.no_grad():
        model.decoder.layers[-1].weight.normal_(0.0, 2.0)
    return model


def quadrature(model: VAE, row: Tensor) -> tuple[Tensor, Any]:
    """Weights ``(Z,)`` of a grid of latents given the observed entries, and its columns."""
    grid = torch.linspace(-8, 8, 4001).unsqueeze(-1)
    columns = model.likelihood(model.decoder(grid))
    filled = row.nan_to_num(0.0).expand(len(grid), 4)
    scores = torch.where(row.isnan(), 0.0, columns.log_prob(filled)).sum(-1)
    return torch.softmax(scores - grid[:, 0] ** 2 / 2, 0), columns


MIXED = torch.tensor([[0.7, NAN, NAN, NAN], [NAN, 1.0, NAN, 3.0], [-1.0, 0.0, 2.0, NAN]])


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
            first, second = probabilities.topk(2).values
            assert first - second > 4 * error.max(), "the best class must be clear"
            assert guess[i, j] == probabilities.argmax()


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


# Chains.


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


# Mixing variables.


@torch.no_grad()
def test_semi_implicit_guides() -> None:
    """Weights by averaged mixing draws; a chain has no density to accept by."""
    model = linear(FactorAnalysis)
    x = torch.tensor([[0.5, NAN, -1.0, NAN]])
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


# For ArviZ and pandas.


def table() -> tuple[pd.DataFrame, Schema, Imputations]:
    made = pd.DataFrame({"height": [1.6, None, 1.8], "visits": [3, 1, 0]}, index=list("abc"))
    made["place"] = pd.Categorical(["sea", "town", None])
    schema = Schema.of(made)
    x = schema.encode(made)
    values = torch.stack([x.nan_to_num(value) for value in (0.0, 1.0, 0.0, 1.0)])
    quality = torch.tensor([0.1, 0.2, 0.3])
    return made, schema, Imputations(values, ~x.isnan(), khat=quality, num_chains=2)


def test_labels_of_rows_and_columns() -> None:
    made, schema, imputed = table()
    x = imputed.to_xarray(made, schema)
    assert x.dims == ("chain", "draw", "row", "column")
    assert dict(x.sizes) == {"chain": 2, "draw": 2, "row": 3, "column": 3}
    assert x.sel(row="b", column="height").values.ravel().tolist() == pytest.approx(
        [1.7, 1.8, 1.7, 1.8]
    )
    assert x.sel(row="c", column="place").values.ravel().tolist() == [0, 1, 0, 1]
    assert x.sel(row="a", column="visits").values.ravel().tolist() == [3, 3, 3, 3]
    assert imputed.to_xarray(made).sel(row="b", column="height")[0, 1] == 1.0, "not in units"
    assert imputed.to_xarray()["row"].values.tolist() == [0, 1, 2]


def test_groups_for_arviz(tmp_path: Any) -> None:
    made, schema, imputed = table()
    container = imputed.to_inference_data(made, schema)
    container.to_netcdf(str(tmp_path / "x.nc"), engine="h5netcdf")
    observed = container["observed_data"]["x"]
    assert np.isnan(observed.values).tolist() == made.isna().to_numpy().tolist()
    assert container["constant_data"]["khat"].sel(row="c").item() == pytest.approx(0.3)
    assert not container["constant_data"]["observed"].sel(row="b", column="height")
    assert container.attrs["categories"] == '{"place": ["sea", "town"]}'
    assert arviz.rhat(container["posterior"]) is not None


def test_completed_frames() -> None:
    made, schema, imputed = table()
    first, second, *_ = imputed.frames(made, schema)
    assert first["place"].tolist() == ["sea", "town", "sea"]
    assert second["place"].tolist() == ["sea", "town", "town"]
    assert (second.dtypes == made.dtypes).all()
    with explained(DataError, "frame", "3 rows", "2", "imputed"):
        imputed.frames(made.iloc[:2], schema)


def test_one_below_the_other() -> None:
    imputed = table()[-1]
    joined = Imputations.joined([imputed, imputed])
    assert joined.values.shape == (4, 6, 3)
    assert joined.khat is not None
    assert joined.khat.shape == (6,)
    assert joined.acceptance is None


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
