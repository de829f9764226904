"""Annealed importance sampling against evidences in closed form."""

from collections.abc import Callable
from math import lgamma, log

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import FROM_GUIDE, ais, check, gamma_poisson, implicit_guide, two_levels
from torch import Tensor

from pyro_lvm.diagnostics import AIS
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.objectives import IWAE
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(12, 2) @ oracle.loading.T + torch.randn(12, 4) * oracle.noise


def test_from_the_prior_without_a_guide(oracle: LinearGaussian, x: Tensor) -> None:
    check(ais(oracle.model, x), oracle.log_evidence(x))


@pytest.mark.parametrize("explicit", [True, False])
def test_from_the_guide(oracle: LinearGaussian, x: Tensor, explicit: bool) -> None:
    guide = oracle.exact_guide if explicit else implicit_guide
    check(ais(oracle.model, x, guide=guide, options=FROM_GUIDE), oracle.log_evidence(x))


def test_one_temperature_is_importance_sampling_from_the_prior(
    oracle: LinearGaussian, x: Tensor
) -> None:
    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    chains = Chains(AIS(1), oracle.model, None, (x,), {}, 50)
    pyro.set_rng_seed(1)
    (log_weights,) = chains
    pyro.set_rng_seed(1)
    IWAE(4).log_weights(oracle.model, prior, x)  # what the pilot run draws
    torch.testing.assert_close(log_weights, IWAE(50).log_weights(oracle.model, prior, x))


def test_a_module_and_its_parameters_stay_as_they_are() -> None:
    model = FactorAnalysis(in_features=5, latent_features=2)
    x = model(size=6).detach()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    check(ais(model, x), model.log_evidence(x).detach())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def beta_bernoulli(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Beta(0.7, 2.0))
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def dirichlet_categorical(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([0.5, 1.0, 2.5])))
        pyro.sample("x", dist.Categorical(p), obs=x)


def support_by_another_latent(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Uniform(0.0, 1.0))
        p = pyro.sample("p", dist.Uniform(torch.zeros_like(top), top))
        pyro.sample("x", dist.Bernoulli(p), obs=x)


CONJUGATE: dict[Callable[..., None], Tensor] = {
    gamma_poisson: torch.tensor([0.0, 3.0, 9.0]),
    beta_bernoulli: torch.tensor([0.0, 1.0]),
    dirichlet_categorical: torch.tensor([0, 1, 2]),
    two_levels: torch.tensor([0.0, 3.0]),
    support_by_another_latent: torch.tensor([0.0, 1.0]),
}


def exact_evidence(model: Callable[..., None], x: Tensor) -> Tensor:
    if model is gamma_poisson:  # negative binomial: Gamma(2, 1/2) mixes rates
        return torch.tensor(
            [lgamma(2 + n) - lgamma(n + 1) + 2 * log(1 / 3) + n * log(2 / 3) for n in x.tolist()]
        )
    if model is two_levels:
        return dist.Normal(0.0, 3**0.5).log_prob(x.double())
    chances = {
        beta_bernoulli: [2.0 / 2.7, 0.7 / 2.7],
        dirichlet_categorical: [0.5 / 4, 1.0 / 4, 2.5 / 4],
        support_by_another_latent: [3 / 4, 1 / 4],
    }
    return torch.tensor(chances[model]).log()


@pytest.mark.parametrize("model", CONJUGATE, ids=lambda model: model.__name__)
def test_supports_and_levels(model: Callable[..., None], device: torch.device) -> None:
    x = CONJUGATE[model].to(device)
    x = x.double() if x.is_floating_point() else x
    check(ais(model, x), exact_evidence(model, x))


def test_guide_draws_of_constrained_sites() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal((x / 2 + 0.5).log(), 0.5))

    x = CONJUGATE[gamma_poisson].double()
    check(ais(gamma_poisson, x, guide=guide, options=FROM_GUIDE), exact_evidence(gamma_poisson, x))
