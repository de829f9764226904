"""Annealed importance sampling over plates: inner ones, masks, scales, minibatches."""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import FROM_GUIDE, SHORT, ais, check
from pyro import poutine
from torch import Tensor

from pyro_lvm.diagnostics import AIS
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(12, 2) @ oracle.loading.T + torch.randn(12, 4) * oracle.noise


def test_global_latent_joins_the_data_in_one_chain() -> None:
    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([1.0, 0.5, -1.5])
    covariance = 2 * torch.eye(3) + torch.ones(3, 3)
    check(ais(model, x), dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x))


@pytest.mark.parametrize("batch_dim", [-1, -2])
def test_inner_plates(batch_dim: int) -> None:
    """Vectors gather latents of an inner plate on either side of the batch plate."""

    def model(x: Tensor) -> None:
        data = pyro.plate("data", x.shape[batch_dim], dim=batch_dim)
        with data:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", x.shape[-3 - batch_dim], dim=-3 - batch_dim):
                z = pyro.sample("z", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(3, 2)
    covariance = 2 * torch.eye(3) + torch.ones(3, 3)
    exact = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x.T)
    check(ais(model, x if batch_dim == -1 else x.T), exact)


def test_summed_out_sites() -> None:
    """Mixture of Normals with one continuous latent: the exact evidence is a mixture too."""
    weights, loc = torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 2.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(loc[c], 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([-2.0, 0.0, 1.0])
    exact = (weights.log() + dist.Normal(loc, 1.25**0.5).log_prob(x[:, None])).logsumexp(-1)
    check(ais(model, x), exact, largest_error=0.1)


def test_missing_data() -> None:
    x = torch.tensor([[0.5, torch.nan], [torch.nan, torch.nan], [1.0, -1.0]])
    seen = ~x.isnan()

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            likelihood = dist.Normal(z[..., None], 1.0).expand([*z.shape, 2]).mask(seen)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    estimate = ais(model, x, seen)
    both = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x[2])
    one = dist.Normal(0.0, 2**0.5).log_prob(x[0, 0])
    error = (estimate.value[::2] - torch.stack([one, both])) / estimate.standard_error[::2]
    assert (error.abs() < 4).all()
    assert (estimate.standard_error < 0.05).all()
    assert estimate.value[1].abs() < 1e-12, "nothing was seen"


@pytest.mark.parametrize("options", [SHORT, FROM_GUIDE])
def test_masked_latents_do_not_count(options: AIS) -> None:
    """The second step of the second datum does not exist."""
    exists = torch.tensor([[True, True], [True, False]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", 2, dim=-2):
            pyro.factor("one weight a row", torch.zeros(2, 1))
            with pyro.plate("steps", 2), poutine.mask(mask=exists):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 2, dim=-2), pyro.plate("steps", 2):
            pyro.sample("z", dist.Normal(x / 2, 0.6))

    x = torch.tensor([[0.3, -2.0], [1.0, 5.0]])
    exact = (dist.Normal(0.0, 2**0.5).log_prob(x) * exists).sum(-1)
    check(ais(model, x, guide=guide, options=options), exact)


def test_scale_is_kept_out_of_the_weights(oracle: LinearGaussian, x: Tensor) -> None:
    rows = torch.tensor([1, 4, 7])
    estimate = ais(oracle.model, x, size=12, subsample=rows)
    check(estimate, oracle.log_evidence(x)[rows])
    torch.testing.assert_close(estimate.total(), 4 * estimate.value.sum())


def test_one_minibatch_in_all_runs(oracle: LinearGaussian) -> None:
    x = 0.3 * torch.arange(20.0)[:, None] * torch.ones(4)  # each far from the others' evidence

    def model(x: Tensor) -> None:
        with pyro.plate("data", 20, subsample_size=4) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample(
                "x", dist.Normal(z @ oracle.loading.T, oracle.noise).to_event(1), obs=x[index]
            )

    estimate = ais(model, x, num_samples=256, options=AIS(100, 5))
    nearest = (estimate.value[:, None] - oracle.log_evidence(x)).abs().min(1)
    assert (nearest.values < 4 * estimate.standard_error).all()
    assert len(nearest.indices.unique()) == 4


def test_factors_on_latents_are_scaled_as_written() -> None:
    """A prior to the power 2 is a density of its own; chains still start at the prior drawn."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=2.0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.0, 1.5])
    power = dist.Normal(0.0, 1.0).log_prob(torch.zeros(())) + 0.5 * log(0.5)
    check(ais(model, x), power + dist.Normal(0.0, 1.5**0.5).log_prob(x))
