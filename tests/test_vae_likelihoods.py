"""Likelihoods inside the VAE: data they cannot have, missing entries, starts, training."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn
from vae_parts import mixed, programs, trained

import pyro_lvm
from pyro_lvm.distributions import (
    CategoricalLikelihood,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.distributions.likelihoods import LIKELIHOODS
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import MLP
from pyro_lvm.objectives import ELBO, IWAE

OUTSIDE: list[tuple[Any, float]] = [
    ("bernoulli", 0.5),
    ("bernoulli", 2.0),
    ("poisson", -1.0),
    ("poisson", 0.5),
    ("negative_binomial", -1.0),
    ("negative_binomial", 1.5),
    (CategoricalLikelihood(6, 4), 4.0),
    (CategoricalLikelihood(6, 4), -1.0),
    (CategoricalLikelihood(6, 4), 0.5),
]


@pytest.mark.parametrize(("likelihood", "wrong"), OUTSIDE)
def test_data_that_a_likelihood_cannot_have(likelihood: Any, wrong: float) -> None:
    x = torch.zeros(3, 6)
    x[1, 2] = wrong
    with explained(PyroLVMError, "site 'x'", "a value that", "within the support", "coding"):
        ELBO().loss(*programs(likelihood), x)


@pytest.mark.parametrize(
    ("column", "wrong", "columns"),
    [(2, 0.5, "2 to 2"), (2, -1.0, "2 to 2"), (3, 3.0, "3 to 3"), (4, 2.0, "4 to 5")],
)
def test_data_that_a_column_cannot_have(column: int, wrong: float, columns: str) -> None:
    x = torch.zeros(3, 6)
    x[1, column] = wrong
    found = f"in columns {columns}: Expected value argument"
    with explained(PyroLVMError, "site 'x'", "a value that", found, "Check the data's coding"):
        ELBO().loss(*programs(mixed()), x)


def test_missing_entries_of_a_row_are_left_out_of_the_bound() -> None:
    """NaN in half of the columns: the bound of the others, with finite gradients."""
    likelihood = mixed()
    observed = torch.tensor([True, False, False, True, False, True])

    def model(x: Tensor, columns: Tensor) -> None:
        pyro.module("likelihood", likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            row = likelihood(z).mask(columns).to_event(1)
            pyro.sample("x", row, obs=x)

    def guide(x: Tensor, columns: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(8))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = likelihood(torch.zeros(3, 8)).sample()
    pyro.set_rng_seed(1)
    loss = IWAE(3).loss_and_grads(model, guide, x.where(observed, torch.nan), observed)
    assert pyro.param("loc").grad.isfinite().all()
    pyro.set_rng_seed(1)
    assert loss == IWAE(3).loss(model, guide, x, observed)


TRAINED: dict[str, Callable[[], Any]] = {
    **{name: partial(str, name) for name in LIKELIHOODS},
    "gaussian-network": partial(GaussianLikelihood, 6, "network"),
    "categorical": partial(CategoricalLikelihood, 6, 4),
    "mixed": mixed,
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_on_its_own_draws_raises_the_bound(name: str) -> None:
    truth, _ = programs(TRAINED[name]())
    with torch.no_grad():
        truth.decoder.bias.normal_()
        truth.decoder.layers[-1].weight.mul_(2.0)
        x = truth(size=200)
    before, after = trained(*programs(TRAINED[name]()), x)
    gain = after - before
    assert gain.mean() > 5 * gain.std() / len(x) ** 0.5


@pytest.mark.parametrize("name", TRAINED)
def test_start_at_the_mean_of_the_data(name: str) -> None:
    mean = torch.tensor([0.5, 0.2, 0.7, 1.0, 0.3, 0.6])
    likelihood = TRAINED[name]()
    model = VAE(6, 2, (), likelihood, data_mean=mean)
    start = model.decode(torch.zeros(2)).mean
    if name == "categorical":
        mean = torch.full((6,), 1.5)  # four classes alike
    torch.testing.assert_close(
        start, mean.clamp(max=0.999) if name == "bernoulli" else mean, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_counts_that_are_all_zero_have_a_start(likelihood: str) -> None:
    model = VAE(6, 2, (), likelihood, data_mean=torch.zeros(6))
    assert model.decode(torch.zeros(2)).mean.isfinite().all()


class Logarithms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(3, None, (8,))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x.log1p())
        return features


@pytest.mark.parametrize("of_data", [True, False])
def test_steady_counts_are_fitted_as_well_as_by_a_poisson(of_data: bool) -> None:
    """Where a latent explains what they vary by; started at an inverse dispersion of 1 too."""
    rates = torch.tensor([3.0, 20.0, 60.0])
    weights = torch.tensor([0.5, -0.4, 0.3])
    x, new = (torch.poisson(rates * (torch.randn(n, 1) * weights).exp()) for n in (1500, 500))
    start = NegativeBinomialLikelihood.of(x) if of_data else NegativeBinomialLikelihood(3)
    evidence = []
    for likelihood in (start, PoissonLikelihood(3)):
        pyro.set_rng_seed(0)
        model = VAE(3, 1, (8,), likelihood, data_mean=x.mean(0))
        guide = AmortizedNormal(Logarithms(), encoder_features=8, latent_features=1)
        options: dict[str, Any] = {"diagnostic_particles": 0, "progress": False}
        pyro_lvm.fit(model, guide, x, IWAE(5), max_steps=400, lr=0.01, **options)
        evidence.append(IWAE(200).bound(model, guide, new))
    difference = evidence[0] - evidence[1]
    assert difference.mean() > -0.01 - 3 * difference.std() / len(new) ** 0.5
