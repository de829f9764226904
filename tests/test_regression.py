"""Bayesian regressions: exact answers against quadrature, dense Gaussians and each other."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from pyro_lvm.errors import DataError, PlateError, ProgramError, PyroLVMError
from pyro_lvm.models import (
    BayesianLinearRegression,
    BayesianLogisticRegression,
    logistic_regression,
)
from pyro_lvm.objectives import ELBO, IWAE, Renyi

pytestmark = pytest.mark.usefixtures("float64")

BOTH = [BayesianLinearRegression, BayesianLogisticRegression]
NOISE = {"unknown noise": None, "known noise": 0.4}
both = pytest.mark.parametrize("model_class", BOTH)
every_noise = pytest.mark.parametrize("noise_scale", NOISE.values(), ids=NOISE)


def linear(features: int, noise_scale: float | None = None) -> BayesianLinearRegression:
    settings = {"prior_precision": 0.5, "concentration": 3.0, "rate": 2.0}
    return BayesianLinearRegression(features, noise_scale=noise_scale, **settings)


def pairs(model: Any, size: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, model.in_features)
    return x, model(x)


# Linear regression.


def grid_of_two(
    model: BayesianLinearRegression, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One weight and the log of the precision on a grid; log of joint density times area."""
    weight, log_precision = torch.meshgrid(
        torch.linspace(-6.0, 6.0, 1201), torch.linspace(-5.0, 4.0, 601), indexing="ij"
    )
    precision = log_precision.exp()
    scale = precision**-0.5
    log_p = dist.Gamma(3.0, 2.0).log_prob(precision) + log_precision
    log_p = log_p + dist.Normal(0.0, scale * 0.5**-0.5).log_prob(weight)
    for row, outcome in zip(x[:, 0], y, strict=True):
        log_p = log_p + dist.Normal(row * weight, scale).log_prob(outcome)
    return weight, precision, log_p + torch.tensor(0.01 * 9.0 / 600).log()


def test_linear_against_quadrature() -> None:
    model = linear(1)
    x, y = pairs(model)
    weight, precision, log_masses = grid_of_two(model, x, y)
    evidence = log_masses.flatten().logsumexp(0)
    torch.testing.assert_close(model.log_evidence(x, y), evidence, rtol=0, atol=1e-9)

    masses = (log_masses - evidence).exp()
    posterior = model.posterior(x, y)
    weight_mean, precision_mean = (masses * weight).sum(), (masses * precision).sum()
    expected = {
        weight_mean: posterior.loc[0],
        precision_mean: posterior.precision.mean,
        (masses * (precision - precision_mean) ** 2).sum(): posterior.precision.variance,
        (masses * (weight - weight_mean) ** 2).sum(): (masses / precision).sum()
        * posterior.unit_tril[0, 0] ** 2,
    }
    for exact, found in expected.items():
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)


@every_noise
def test_linear_against_the_marginal_of_the_outcomes(noise_scale: float | None) -> None:
    model = linear(3, noise_scale)
    x, y = pairs(model)
    covariance = torch.eye(12) + x @ x.T / 0.5
    if noise_scale is None:
        tril = torch.linalg.cholesky(covariance * 2.0 / 3.0)
        marginal = dist.MultivariateStudentT(6.0, torch.zeros(12), tril)
    else:
        marginal = dist.MultivariateNormal(torch.zeros(12), covariance * noise_scale**2)
    exact = marginal.log_prob(y)
    torch.testing.assert_close(model.log_evidence(x, y), exact, rtol=0, atol=1e-10)


@every_noise
def test_linear_prediction_is_a_ratio_of_evidences(noise_scale: float | None) -> None:
    model = linear(3, noise_scale)
    x, y = pairs(model)
    predicted = model.predict(x[-2:], x[:-2], y[:-2])
    assert predicted.batch_shape == (2,)
    before = model.log_evidence(x[:-2], y[:-2])
    for row in (-2, -1):
        rows = [*range(10), row]
        ratio = model.log_evidence(x[rows], y[rows]) - before
        torch.testing.assert_close(predicted.log_prob(y[-2:])[row], ratio, rtol=0, atol=1e-10)


@every_noise
@pytest.mark.parametrize("objective", [ELBO(), ELBO(4), IWAE(1), IWAE(7), Renyi(5, alpha=0.5)])
def test_exact_guide(noise_scale: float | None, objective: Any) -> None:
    model = linear(3, noise_scale)
    x, y = pairs(model)
    bound = objective.bound(model, model.exact_guide, x, y)
    torch.testing.assert_close(bound, model.log_evidence(x, y), rtol=0, atol=1e-6)


def test_exact_posterior_keeps_its_digits() -> None:
    """Many data and little noise, in float32."""
    model = linear(3, 0.01).float()
    x = torch.randn(5000, 3)
    y = x.sum(-1) + 0.01 * torch.randn(5000)
    narrow = model.log_evidence(x.float(), y.float()).double()
    exact = model.double().log_evidence(x.float().double(), y.float().double())
    torch.testing.assert_close(narrow, exact, rtol=1e-4, atol=0)


@every_noise
def test_linear_prior_predictive_moments(noise_scale: float | None) -> None:
    """Many data sets at once: a plate to the left, as particles are."""
    model, draws = linear(2, noise_scale), 20_000
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0], [-1.0, 1.0]])
    with pyro.plate("data sets", draws, dim=-2):
        y = model(x)
    noise = 2.0 / (3.0 - 1) if noise_scale is None else noise_scale**2  # E 1 / precision
    covariance = noise * (torch.eye(3) + x @ x.T / 0.5)
    products = y[:, :, None] * y[:, None, :]
    error = products.mean(0) - covariance
    assert (error.abs() < 5 * products.std(0) / draws**0.5).all()
    assert (y.mean(0).abs() < 5 * (covariance.diagonal() / draws).sqrt()).all()


# Logistic regression.


def brute_grid(model: BayesianLogisticRegression, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Nine prior standard deviations to either side, evenly; log of joint density times area."""
    axis = torch.linspace(-9.0, 9.0, 801) * model.prior_scale
    weights = torch.cartesian_prod(*[axis] * model.in_features).reshape(-1, model.in_features)
    log_p = dist.Normal(0.0, model.prior_scale).log_prob(weights).sum(-1)
    for row, outcome in zip(x, y, strict=True):
        log_p = log_p + dist.Bernoulli(logits=weights @ row).log_prob(outcome)
    return weights, log_p + model.in_features * (axis[1] - axis[0]).log()


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("prior_scale", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("features", [1, 2])
def test_logistic_against_brute_force(features: int, prior_scale: float, separable: bool) -> None:
    model = BayesianLogisticRegression(features, prior_scale=prior_scale)
    x, y = pairs(model)
    if separable:
        y = (x.sum(-1) > 0).to(x)
    weights, log_masses = brute_grid(model, x, y)
    evidence = log_masses.logsumexp(0)
    torch.testing.assert_close(model.log_evidence(x, y), evidence, rtol=0, atol=1e-9)
    masses = (log_masses - evidence).exp()
    mean, covariance = model.moments(x, y)
    exact = masses @ weights
    torch.testing.assert_close(mean, exact, rtol=1e-8, atol=1e-8)
    spread = (masses[:, None] * (weights - exact)).T @ (weights - exact)
    torch.testing.assert_close(covariance, spread, rtol=1e-8, atol=1e-8)


def test_one_outcome_is_as_likely_as_the_other() -> None:
    model = BayesianLogisticRegression(2, prior_scale=3.0)
    evidence = model.log_evidence([[0.3, -2.0]], [1])
    torch.testing.assert_close(evidence, torch.tensor(0.5).log(), rtol=0, atol=1e-10)


def test_logistic_evidence_of_all_outcomes_sums_to_one() -> None:
    """Three weights, where a brute grid would be too large."""
    model = BayesianLogisticRegression(3, prior_scale=3.0)
    x = torch.randn(3, 3)
    every = [model.log_evidence(x, torch.tensor(y)) for y in product([0.0, 1.0], repeat=3)]
    total = torch.stack(every).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros(()), rtol=0, atol=1e-9)


def test_logistic_evidence_at_a_second_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BayesianLogisticRegression(3, prior_scale=10.0)
    x = torch.randn(20, 3)
    y = (x.sum(-1) > 0).to(x)  # separable: the posterior is far from Normal
    coarse = model.log_evidence(x, y)
    monkeypatch.setattr(logistic_regression, "_NODES", {3: 111})
    monkeypatch.setattr(logistic_regression, "_REACH", 4.3)
    torch.testing.assert_close(coarse, model.log_evidence(x, y), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_laplace_is_the_mode_and_its_curvature(size: float) -> None:
    """Large covariates and a wide prior make plain Newton steps overshoot."""
    model = BayesianLogisticRegression(5, prior_scale=20.0)
    x = size * torch.randn(40, 5)
    y = (x.sum(-1) > 0).to(x)
    fit = model.laplace(x, y)

    def log_joint(weights: Tensor) -> Tensor:
        likelihood = dist.Bernoulli(logits=x @ weights).log_prob(y).sum()
        return likelihood + dist.Normal(0.0, 20.0).log_prob(weights).sum()

    slope = torch.autograd.functional.jacobian(log_joint, fit.mean)
    torch.testing.assert_close(slope, torch.zeros(5), rtol=0, atol=1e-8)
    curvature = -torch.autograd.functional.hessian(log_joint, fit.mean)
    torch.testing.assert_close(fit.precision_matrix, curvature, rtol=1e-6, atol=1e-8)


def test_bounds_of_a_laplace_guide() -> None:
    """ELBO < IWAE < evidence, and 20 000 draws come within 0.02 nats of it."""
    model = BayesianLogisticRegression(3)
    x, y = pairs(model, 40)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.sample("weights", model.laplace(x, y))

    evidence = model.log_evidence(x, y)
    log_weights = IWAE(20_000).log_weights(model, guide, x, y)
    five = IWAE().bound_per_datum(log_weights.unflatten(0, (5, -1)))
    assert log_weights.mean() + 4 * log_weights.std() / 20_000**0.5 < five.mean()
    assert five.mean() + 4 * five.std() / len(five) ** 0.5 < evidence
    error = 4 * (log_weights - evidence).exp().std() / 20_000**0.5
    assert error < 0.02
    assert (IWAE().bound_per_datum(log_weights) - evidence).abs() < error


def test_logistic_prior_predictive() -> None:
    model = BayesianLogisticRegression(2)
    with pyro.plate("data sets", 20_000, dim=-2):
        y = model(torch.tensor([[1.0, 0.0], [1.0, 3.0]]))
    assert ((y == 0) | (y == 1)).all()
    assert ((y.mean(0) - 0.5).abs() < 5 * 0.5 / 20_000**0.5).all()


# Both.


@both
def test_minibatch_is_scaled(model_class: Callable[..., Any]) -> None:
    model = model_class(num_data=40)
    x, y = pairs(model, 4)
    sites = pyro.poutine.trace(model).get_trace(x, y).nodes
    assert (float(sites["y"]["scale"]), float(sites["weights"]["scale"])) == (10.0, 1.0)
    with pyro.settings.context(module_local_params=False):
        guide = AutoMultivariateNormal(model)
        assert ELBO().loss(model, guide, x, y) > 0
    with pytest.raises(PlateError, match="plate 'data': expected every site inside it"):
        IWAE(2).loss(model, guide, x, y)


@both
def test_minibatches_average_to_the_whole(model_class: Callable[..., Any]) -> None:
    """At the same draw of the weights, the ELBO of all data is the mean over the batches."""
    model = model_class(num_data=20)
    x, y = pairs(model, 20)

    def guide(*rows: Tensor) -> None:
        if isinstance(model, BayesianLinearRegression):
            model.exact_guide(x, y)
        else:
            pyro.sample("weights", model.laplace(x, y))

    def elbo(rows: slice) -> float:
        pyro.set_rng_seed(3)
        return ELBO().loss(model, guide, x[rows], y[rows])

    batches = [elbo(slice(first, first + 5)) for first in range(0, 20, 5)]
    assert sum(batches) / 4 == pytest.approx(elbo(slice(None)), rel=1e-12)


@both
@pytest.mark.parametrize("wrap", [Tensor.float, Tensor.long, np.asarray, Tensor.tolist])
def test_any_kind_of_number_is_data(
    model_class: Callable[..., Any], wrap: Callable[..., Any]
) -> None:
    model = model_class()
    x = torch.randn(5, 3).round()
    y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    evidence = model.log_evidence(wrap(x), wrap(y))
    assert evidence.shape == ()
    torch.testing.assert_close(evidence, model.log_evidence(x, y))


@both
def test_the_dtype_is_the_modules(model_class: Callable[..., Any]) -> None:
    model = model_class().float()
    x, y = pairs(model)
    assert y.dtype == model.log_evidence(x, y).dtype == torch.float32


@both
def test_wrong_shapes(model_class: Callable[..., Any]) -> None:
    model = model_class()
    with explained(DataError, "x", "shape (batch, 3)", "shape (4, 2)", "in_features"):
        model(torch.zeros(4, 2))
    with explained(DataError, "y", "shape (4,)", "shape (4, 1)", "y.squeeze(-1)"):
        model(torch.zeros(4, 3), torch.zeros(4, 1))
    with explained(DataError, "y", "shape (4,)", "shape (5,)", "one outcome for each row"):
        model.log_evidence(torch.zeros(4, 3), torch.zeros(5))


def test_outcomes_that_are_no_outcomes() -> None:
    model = BayesianLogisticRegression()
    x, y = torch.zeros(4, 3), torch.full((4,), 0.5)
    with pytest.raises(PyroLVMError, match="site 'y': expected a value that Bernoulli"):
        ELBO().loss(model, lambda x, y: pyro.sample("weights", model.laplace(x, y.round())), x, y)


def test_too_many_weights_for_a_grid() -> None:
    model = BayesianLogisticRegression(4)
    x, y = pairs(model)
    for method in (model.log_evidence, model.moments):
        with explained(ProgramError, "in_features", "at most 3 weights", "4", "laplace(x, y)"):
            method(x, y)
    assert model.laplace(x, y).event_shape == (4,)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: BayesianLinearRegression(prior_precision=0.0), "prior_precision"),
        (lambda: BayesianLinearRegression(concentration=-1.0), "concentration"),
        (lambda: BayesianLinearRegression(rate=float("nan")), "rate"),
        (lambda: BayesianLinearRegression(noise_scale=0.0), "noise_scale"),
        (lambda: BayesianLogisticRegression(prior_scale=0.0), "prior_scale"),
    ],
)
def test_arguments_above_zero(make: Callable[[], Any], argument: str) -> None:
    with explained(ProgramError, argument, "a number above 0", "", f"Pass {argument}=1.0"):
        make()
