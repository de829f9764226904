"""Warm-up and free bits where the densities of several sites are one sum."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import ELBO, IWAE, SIVI

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([1.3, -0.5], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)
LOCS = torch.tensor([-2.0, 2.0], dtype=torch.float64)
ENUMERATE = {"enumerate": "parallel"}


def summed_out(x: Tensor) -> None:
    """A latent whose prior depends on a class that the guide does not draw."""
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(SHARES), infer=ENUMERATE)
        z = pyro.sample("z", dist.Normal(LOCS[c], 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def marginal(x: Tensor) -> None:
    """The same with the sum written out."""
    prior = dist.MixtureSameFamily(dist.Categorical(SHARES), dist.Normal(LOCS, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7))


def loss(objective: Any, *programs: Any) -> float:
    pyro.set_rng_seed(0)
    return float(objective.loss(*programs, X))


@pytest.mark.parametrize("how", [{"beta": 0.3}, {"beta": 0.0}, {"free_bits": 2.0}])
@pytest.mark.parametrize("cls", [ELBO, IWAE])
def test_a_prior_with_a_class_summed_out(cls: Any, how: dict[str, float]) -> None:
    """KL is that from the marginal prior, class and all."""
    objective = cls(5, **how)
    assert loss(objective, summed_out, guide) == pytest.approx(loss(objective, marginal, guide))


def test_a_sum_that_prior_and_data_share() -> None:
    def shared(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(SHARES), infer=ENUMERATE)
            z = pyro.sample("z", dist.Normal(LOCS[c], 1.0))
            pyro.sample("x", dist.Normal(z + LOCS[c], 1.0), obs=x)

    assert ELBO(2).differentiable_loss(shared, guide, X).isfinite()
    with explained(ProgramError, "'z' and 'x'", "apart", "one sum of both", "Draw that site"):
        ELBO(2, beta=0.5).differentiable_loss(shared, guide, X)


def test_two_latents_of_one_mixing_variable() -> None:
    """Their joint density is one term, each prior another: the KL is that of all three."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            y = pyro.sample("y", dist.Normal(torch.ones(()), 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def mixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            e = pyro.sample("e", dist.Normal(0.0 * x, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x / 2 + e, 0.7))
            pyro.sample("y", dist.Normal(x / 2 - e, 0.7))

    found = loss(SIVI(4, num_mixing=3, beta=0.0), model, mixed)
    pyro.set_rng_seed(0)
    values = SIVI(4, num_mixing=3).particles(model, mixed, X).values
    likelihood = dist.Normal(values["z"] + values["y"], 1.0).log_prob(X)
    by_hand = (likelihood.logsumexp(0) - torch.tensor(4.0).log()).sum()
    assert found == pytest.approx(-by_hand.item())
