"""Linear-Gaussian models against the joint distribution of (z, x), written out."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.models import FactorAnalysis, ProbabilisticPCA

linear_gaussian = pytest.mark.parametrize("model_class", [FactorAnalysis, ProbabilisticPCA])


def _drawn(model_class: Any, features: int = 5, latents: int = 2) -> Any:
    model = model_class(features, latents)
    with torch.no_grad():
        model.loading.normal_()
        model.mean.normal_()
    model.noise_scale = torch.rand(model.noise_scale.shape) + 0.2
    return model


def _joint(model: Any) -> tuple[Tensor, Tensor]:
    latents = model.loading.shape[1]
    noise = torch.diag(model.noise_scale.expand(len(model.mean)) ** 2)
    both = torch.cat([torch.eye(latents), model.loading])
    covariance = both @ both.T
    covariance[latents:, latents:] += noise
    return torch.cat([torch.zeros(latents), model.mean]).detach(), covariance.detach()


@linear_gaussian
def test_exact_evidence_and_posterior(model_class: Any, float64: torch.dtype) -> None:
    model = _drawn(model_class)
    x = model(size=7).detach()
    mean, covariance = _joint(model)
    marginal = dist.MultivariateNormal(mean[2:], covariance[2:, 2:])
    torch.testing.assert_close(model.log_evidence(x), marginal.log_prob(x), rtol=0, atol=1e-10)

    gain = covariance[:2, 2:] @ torch.linalg.inv(covariance[2:, 2:])
    left = covariance[:2, :2] - gain @ covariance[2:, :2]
    posterior = model.posterior(x)
    assert posterior.batch_shape == (7,)
    torch.testing.assert_close(posterior.mean, (x - mean[2:]) @ gain.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(posterior.covariance_matrix[3], left, rtol=0, atol=1e-10)


@linear_gaussian
def test_exact_evidence_keeps_its_digits(model_class: Any) -> None:
    """Little noise: forms of size 1e6 would cancel in float32."""
    model = _drawn(model_class)
    model.noise_scale = torch.full_like(model.noise_scale, 1e-2).detach()
    x = model(size=50).detach()
    narrow = model.log_evidence(x).detach()
    exact = model.double().log_evidence(x.double()).detach()
    torch.testing.assert_close(narrow.double(), exact, rtol=1e-3, atol=1e-2)


@linear_gaussian
def test_prior_predictive_moments(model_class: Any, float64: torch.dtype) -> None:
    model = _drawn(model_class)
    mean, covariance = _joint(model)
    mean, covariance = mean[2:], covariance[2:, 2:]
    size = 20_000
    x = model(size=size).detach()
    variance = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (variance / size).sqrt()).all()
    error = (x.T.cov() - covariance).abs()
    spread = (covariance**2 + variance[:, None] * variance) / size
    assert (error < 5 * spread.sqrt()).all()


def test_maximum_likelihood_is_a_maximum(float64: torch.dtype) -> None:
    x = torch.randn(300, 2) @ torch.randn(2, 5) + 0.3 * torch.randn(300, 5) + 1.0
    model = ProbabilisticPCA.maximum_likelihood(x, latent_features=2)
    best = model.log_evidence(x).mean()
    for gradient in torch.autograd.grad(best, list(model.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)
    torch.testing.assert_close(model.mean, x.mean(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
        assert model.log_evidence(x).mean() < best


def test_maximum_likelihood_takes_the_dtype_of_the_data() -> None:
    model = ProbabilisticPCA.maximum_likelihood(torch.randn(20, 3, dtype=torch.float64), 1)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_maximum_likelihood_needs_noise() -> None:
    with pytest.raises(ProgramError, match=r"latent_features: expected less than 3, got 3"):
        ProbabilisticPCA.maximum_likelihood(torch.randn(9, 3), 3)
    flat = torch.randn(9, 1).expand(9, 3)
    with pytest.raises(DataError, match="x: expected variance left for the noise, got none"):
        ProbabilisticPCA.maximum_likelihood(flat, 1)


def test_strong_factors_in_single_precision() -> None:
    """Rounding leaves the posterior's precision asymmetric beyond what torch takes for granted."""
    x = torch.randn(500, 6) @ torch.randn(6, 60) + 0.3 * torch.randn(500, 60)
    model = ProbabilisticPCA.maximum_likelihood(x, 6)
    double = ProbabilisticPCA.maximum_likelihood(x.double(), 6)
    single_mean, double_mean = model.posterior(x).mean, double.posterior(x.double()).mean
    assert single_mean.isfinite().all()
    # Factors are known up to their signs; x'x loses half of float32's 7 digits.
    torch.testing.assert_close(single_mean.abs(), double_mean.abs().float(), atol=0.02, rtol=0)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: FactorAnalysis(6, 0), r"latent_features: expected an integer >= 1, got 0"),
    (lambda: FactorAnalysis(-6), r"in_features: expected an integer >= 1, got -6"),
    (lambda: ProbabilisticPCA(6, 2, num_data=-1), r"num_data: expected an integer >= 1, got -1"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()
