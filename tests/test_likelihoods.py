"""Likelihoods one by one and mixed: densities, moments, draws."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer import SVI
from torch import Tensor
from vae_parts import mixed

from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Columns,
    GaussianLikelihood,
    Likelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.distributions.likelihoods import as_likelihood
from pyro_lvm.distributions.negative_binomial import inverse_dispersion_of
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO

THETA = [0.5, 3.0]
SIGMA = [0.5, 2.0]


def gaussian() -> Likelihood:
    likelihood = GaussianLikelihood(2)
    likelihood.noise_scale = torch.tensor(SIGMA)
    return likelihood


def negative_binomial() -> Likelihood:
    return NegativeBinomialLikelihood(2, torch.tensor(THETA))


# Densities, written out.


def _log_bernoulli(x: Tensor, output: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-output))
    return torch.log(torch.where(x == 1, p, 1 - p))


def _log_normal_of_feature(x: Tensor, output: Tensor) -> Tensor:
    return _log_normal(x, output, torch.tensor(SIGMA))


def _log_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    density = torch.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * (2 * torch.pi) ** 0.5)
    return density.log()


def _log_normal_of_network(x: Tensor, output: Tensor) -> Tensor:
    loc, raw = output[..., :2], output[..., 2:]
    return _log_normal(x, loc, torch.log(1 + raw.exp()) + 1e-6)


def _log_poisson(x: Tensor, output: Tensor) -> Tensor:
    rate = output.exp() + 1e-6
    return x * rate.log() - rate - torch.lgamma(x + 1)


def _log_negative_binomial(x: Tensor, output: Tensor) -> Tensor:
    mu, theta = output.exp(), torch.tensor(THETA)
    choices = torch.lgamma(x + theta) - torch.lgamma(x + 1) - torch.lgamma(theta)
    return choices + theta * (theta / (theta + mu)).log() + x * (mu / (theta + mu)).log()


def _log_categorical(x: Tensor, output: Tensor) -> Tensor:
    logits = output.reshape(*output.shape[:-1], 2, 3)
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.where(x == 0, p[..., 0], torch.where(x == 1, p[..., 1], p[..., 2])).log()


EXACT: dict[str, tuple[Callable[[], Likelihood], Callable[..., Tensor], float]] = {
    "bernoulli": (partial(BernoulliLikelihood, 2), _log_bernoulli, 1.0),
    "categorical": (partial(CategoricalLikelihood, 2, 3), _log_categorical, 2.0),
    "gaussian": (gaussian, _log_normal_of_feature, 3.0),
    "gaussian-network": (
        partial(GaussianLikelihood, 2, "network"),
        _log_normal_of_network,
        3.0,
    ),
    "negative_binomial": (negative_binomial, _log_negative_binomial, 9.0),
    "poisson": (partial(PoissonLikelihood, 2), _log_poisson, 9.0),
}
every_likelihood = pytest.mark.parametrize("name", EXACT)
DISCRETE = ["bernoulli", "categorical", "negative_binomial", "poisson"]


@every_likelihood
def test_log_probabilities(name: str, float64: torch.dtype) -> None:
    make, exact, largest = EXACT[name]
    likelihood = make()
    output = torch.randn(4, 5, likelihood.num_outputs)
    x = (largest * torch.rand(5, 2)).round()
    found = likelihood(output).log_prob(x)
    torch.testing.assert_close(found, exact(x, output), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_mean_and_variance_are_those_of_the_probabilities(name: str, float64: torch.dtype) -> None:
    """Summed over all values that have any probability."""
    likelihood = EXACT[name][0]()
    row = likelihood(torch.randn(likelihood.num_outputs))
    top = {"bernoulli": 1, "categorical": 2}.get(name, 400)
    x = torch.arange(top + 1.0)[:, None]
    p = row.log_prob(x.expand(-1, 2)).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(2), rtol=0, atol=1e-10)
    mean = (p * x).sum(0)
    torch.testing.assert_close(row.mean, mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(row.variance, (p * (x - mean) ** 2).sum(0), rtol=0, atol=1e-10)


def test_negative_binomial_has_the_variance_of_single_cell_models(float64: torch.dtype) -> None:
    output = torch.randn(5, 2)
    counts, mu = negative_binomial()(output), output.exp()
    torch.testing.assert_close(counts.mean, mu)
    torch.testing.assert_close(counts.variance, mu + mu**2 / torch.tensor(THETA))


@pytest.mark.parametrize("size", [1e1, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("theta", [0.01, 1.0, 30.0])
def test_large_counts_keep_their_digits(size: float, theta: float) -> None:
    """In float32, against Pyro's in float64, whose log-gammas lose 1e-16 of x log(x)."""
    likelihood = NegativeBinomialLikelihood(1, theta)
    narrow = torch.log(size * torch.tensor([[0.5], [1.0], [3.0]]))
    x = torch.tensor([0.0, 0.2, 1.0, 4.0]).mul(size).round()[:, None, None]
    wide, total = narrow.double().requires_grad_(), torch.tensor([theta]).double().requires_grad_()
    exact = dist.NegativeBinomial(total, logits=wide - total.log()).log_prob(x.double())
    output = narrow.requires_grad_()
    found = likelihood(output).log_prob(x)
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=3e-5)
    slopes = torch.autograd.grad(found.sum(), (output, likelihood.spread))
    expected = torch.autograd.grad(exact.sum(), (wide, total))
    expected = (expected[0], expected[1] * -2 * theta**1.5)  # of theta's root, inverted
    for slope, right in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope.double(), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1e0, 1e1, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("theta", [1e4, 1e7, None])
def test_steady_counts_keep_their_digits(size: float, theta: float | None) -> None:
    """In float32, within three standard deviations of the mean: all terms are of x log(x).

    What is left is the rounding of the mean's logarithm, and of the mean.
    """
    output = torch.tensor([[size]]).log()
    mean, total = output.double().exp(), torch.tensor(theta or 1.0).double()
    spread = mean.sqrt() if theta is None else (mean + mean**2 / theta).sqrt()
    x = (mean + spread * torch.linspace(-3, 3, 13)[:, None]).clamp(min=0).round().float()
    exact: Any = dist.Poisson(mean + 1e-6)
    likelihood: Likelihood = PoissonLikelihood(1)
    if theta is not None:
        exact = dist.NegativeBinomial(total, logits=mean.log() - total.log())
        likelihood = NegativeBinomialLikelihood(1, theta)
    found = likelihood(output).log_prob(x)
    slope = (x - mean) / (1 if theta is None else 1 + mean / theta)  # in the mean's logarithm
    rounding = torch.finfo(torch.float32).eps * (slope.abs() * (3 + output.abs())).max().item()
    torch.testing.assert_close(
        found.double(), exact.log_prob(x.double()), rtol=2e-6, atol=rounding + 3e-6
    )


def test_dispersion_by_moments() -> None:
    """Of many counts the truth; of none in sight the least that so many would show."""
    counts = 40_000
    mean, theta = torch.tensor([20.0, 2.0, 8.0]), torch.tensor([2.0, 0.3, 50.0])
    logits = mean.log() - theta.log()
    x = dist.NegativeBinomial(theta, logits=logits).sample((counts,))
    # v - m has an error of about sqrt(2 / n) (m + m^2 / theta), more for the long tail of 0.3
    bound = 6 * (2 / counts) ** 0.5 * (mean + mean**2 / theta) / (mean**2 / theta)
    found = inverse_dispersion_of(x)
    assert ((found / theta).log().abs() < bound * torch.tensor([1.0, 3.0, 1.0])).all()
    holes = torch.cat([x, torch.full_like(x, torch.nan)])
    torch.testing.assert_close(inverse_dispersion_of(holes), found)
    steady = torch.tensor([[5.0, 0.0, 1.0, torch.nan], [5.0, 0.0, torch.nan, torch.nan]])
    torch.testing.assert_close(
        inverse_dispersion_of(steady), torch.tensor([5.0, 1e-3, 0.5**0.5, 1e-3 / 2**0.5])
    )
    torch.testing.assert_close(
        inverse_dispersion_of(steady[:, :2].long()), torch.tensor([5.0, 1e-3])
    )


def test_a_likelihood_starts_at_the_dispersion_of_data() -> None:
    x = torch.tensor([[9.0, 0.0], [11.0, 7.0], [10.0, torch.nan]])
    likelihood = NegativeBinomialLikelihood.of(x)
    torch.testing.assert_close(likelihood.inverse_dispersion, inverse_dispersion_of(x))
    assert likelihood.inverse_dispersion.requires_grad
    assert NegativeBinomialLikelihood(2, 3.0).inverse_dispersion.tolist() == pytest.approx([3, 3])


def test_a_rate_that_underflows_has_a_gradient() -> None:
    """exp(-200) is 0 in float32, and 0 log 0 has none."""
    output = torch.full((1, 2), -200.0, requires_grad=True)
    for likelihood in (PoissonLikelihood(2), NegativeBinomialLikelihood(2)):
        (slope,) = torch.autograd.grad(likelihood(output).log_prob(torch.zeros(1, 2)).sum(), output)
        assert slope.isfinite().all()


@every_likelihood
def test_draws_are_floating_point(name: str) -> None:
    likelihood = EXACT[name][0]()
    drawn = likelihood(torch.zeros(3, likelihood.num_outputs)).sample()
    assert drawn.is_floating_point()
    assert drawn.shape == (3, 2)


@pytest.mark.parametrize("kind", [Tensor.byte, Tensor.int, Tensor.long, Tensor.half, Tensor.double])
def test_class_numbers_of_any_dtype(kind: Callable[[Tensor], Tensor]) -> None:
    model, guide = (
        VAE(2, 1, (4,), CategoricalLikelihood(2, 3)),
        AmortizedNormal(in_features=2, latent_features=1),
    )
    x = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    bounds = []
    for data in (x, kind(x)):
        pyro.set_rng_seed(0)
        bounds.append(ELBO().bound(model, guide, data))
    assert torch.equal(*bounds)


# Mixed.


def test_mixed_is_its_parts_side_by_side(float64: torch.dtype) -> None:
    likelihood = mixed()
    output = torch.randn(7, 5, likelihood.num_outputs)
    x = torch.tensor([-0.3, 1.7, 4.0, 2.0, 1.0, 0.0]).expand(5, 6)
    row = likelihood(output)
    assert row.batch_shape == (7, 5, 6)
    outputs, columns = output.split([2, 1, 3, 2], -1), x.split([2, 1, 1, 2], -1)
    alone = [p(o).log_prob(c) for p, o, c in zip(likelihood.parts, outputs, columns, strict=True)]
    torch.testing.assert_close(row.log_prob(x), torch.cat(alone, -1))
    torch.testing.assert_close(row.to_event(1).log_prob(x), torch.cat(alone, -1).sum(-1))
    assert row.sample((3,)).shape == (3, 7, 5, 6)
    torch.testing.assert_close(row.expand((2, 7, 5, 6)).log_prob(x)[1], row.log_prob(x))
    for moment in ("mean", "variance"):
        parts = [getattr(p(o), moment) for p, o in zip(likelihood.parts, outputs, strict=True)]
        torch.testing.assert_close(getattr(row, moment), torch.cat(parts, -1))


@pytest.mark.parametrize(
    "make", [mixed, lambda: MixedLikelihood([gaussian(), GaussianLikelihood(4, "network")])]
)
def test_single_columns_can_be_missing(
    make: Callable[[], Likelihood], float64: torch.dtype
) -> None:
    likelihood = make()
    output = torch.randn(3, likelihood.num_outputs, requires_grad=True)
    row = likelihood(output)
    x = row.sample()
    observed = torch.rand(3, 6) < 0.5
    expected = torch.where(observed, row.log_prob(x), 0.0).sum(-1)
    holes = x.where(observed, torch.nan)
    masked = masked_log_prob(row.mask(observed).to_event(1), holes, None, is_observed=True)
    torch.testing.assert_close(masked, expected)
    found, exact = (
        torch.autograd.grad(v.sum(), output, retain_graph=True)[0] for v in (masked, expected)
    )
    torch.testing.assert_close(found, exact)


def test_columns_broadcast_to_the_left() -> None:
    parts = [dist.Normal(torch.zeros(4, 1, 2), 1.0), dist.Poisson(torch.ones(5, 1))]
    row = Columns(parts)
    assert row.batch_shape == (4, 5, 3)
    assert row.log_prob(torch.zeros(5, 3)).shape == (4, 5, 3)


def test_parts_of_a_mixture_keep_their_own_parameters_in_the_store() -> None:
    likelihood = MixedLikelihood([GaussianLikelihood(2), GaussianLikelihood(3)])
    model, guide = VAE(5, 2, (4,), likelihood), AmortizedNormal(in_features=5, latent_features=2)
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ELBO()).step(torch.randn(6, 5))
    scales = {n: p for n, p in pyro.get_param_store().items() if n.endswith("noise_scale")}
    assert [len(p) for p in scales.values()] == [2, 3]
    assert all(bool((p != 1).all()) for p in scales.values())


WRONG: list[tuple[Callable[[], Any], tuple[str, str, str, str]]] = [
    (
        lambda: as_likelihood("beta", 6),
        ("likelihood", "'negative_binomial', 'poisson'", "'beta'", "likelihood='bernoulli'"),
    ),
    (
        lambda: VAE(6, 2, likelihood=PoissonLikelihood(5)),
        ("likelihood", "one of 6 columns", "a PoissonLikelihood of 5", "as many columns"),
    ),
    (lambda: MixedLikelihood([]), ("parts", "at least one", "none", "GaussianLikelihood")),
    (lambda: CategoricalLikelihood(6, 0), ("num_classes", "integer >= 1", "0", "num_classes")),
    (lambda: GaussianLikelihood(6, "none"), ("noise", "'feature'", "'none'", "noise='feature'")),
    (lambda: PoissonLikelihood(0), ("features", "an integer >= 1", "0", "Check features")),
]


@pytest.mark.parametrize(("make", "texts"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], texts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *texts):
        make()
