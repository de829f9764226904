"""The bridge to ArviZ: restarts as chains, labels of tables, and what ArviZ makes of it."""

from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.errors import DataError, PyroLVMError
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(6, 2) @ oracle.loading.T + torch.randn(6, 4) * oracle.noise


def shifted(oracle: LinearGaussian, shift: float) -> Callable[[Tensor], None]:
    """The posterior, off by so much."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            q = oracle.posterior(x)
            pyro.sample("z", dist.MultivariateNormal(q.loc + shift, q.covariance_matrix))

    return guide


# Restarts.


def test_restarts_are_chains_and_their_rhat_tells(oracle: LinearGaussian, x: Tensor) -> None:
    def rhat(*shifts: float) -> Tensor:
        guides = [shifted(oracle, shift) for shift in shifts]
        idata = to_inference_data(oracle.model, guides, x, num_samples=900, seed=0)
        assert dict(idata["posterior"].sizes) == {"chain": 3, "draw": 300, "data": 6, "z_dim_0": 2}
        assert dict(idata["prior_predictive"].sizes)["chain"] == 3
        assert idata["observed_data"]["x"].dims == ("data", "x_dim_0")
        assert idata.attrs["log_weight_is_exact"] == [1, 1, 1]
        return torch.as_tensor(az.rhat(idata)["z"].values)

    assert rhat(0.0, 0.0, 0.0).max() < 1.03
    assert rhat(0.0, 0.0, 2.0).min() > 1.2


def test_each_restart_draws_for_itself(oracle: LinearGaussian, x: Tensor) -> None:
    """Chains stand in the order of the guides, each with weights of its own."""
    guides = [shifted(oracle, 0.0), shifted(oracle, 5.0)]
    objectives = [ELBO(), IWAE(5)]
    idata = to_inference_data(
        [oracle.model] * 2, guides, x, num_samples=200, objective=objectives, seed=0
    )
    mean = torch.as_tensor(idata["posterior"]["z"].values).mean(1)  # (chain, data, 2)
    error = (mean - oracle.posterior(x).loc) / (oracle.posterior(x).variance / 100).sqrt()
    assert error[0].abs().max() < 4.5
    assert (mean[1] - mean[0] > 3).all()
    weights = torch.as_tensor(idata["sample_stats"]["log_weight"].values)
    torch.testing.assert_close(weights[0], oracle.log_evidence(x).expand(100, 6))
    assert (weights[1] < weights[0]).all()
    assert idata.attrs["objective"] == "ELBO", "of the first"


def test_corrected_restarts_agree_again(oracle: LinearGaussian, x: Tensor) -> None:
    guides = [shifted(oracle, 0.0), shifted(oracle, 0.2)]
    idata = to_inference_data(
        oracle.model, guides, x, num_samples=4000, correct="mh", num_chains=2, seed=0
    )
    assert dict(idata["posterior"].sizes)["chain"] == 4
    assert len(idata.attrs["acceptance_min"]) == 2
    assert float(az.rhat(idata)["z"].max()) < 1.03


def test_restarts_that_do_not_fit(oracle: LinearGaussian, x: Tensor) -> None:
    guides = [oracle.exact_guide] * 3
    with explained(PyroLVMError, "model", "a list of 3", "a list of 2", "each restart"):
        to_inference_data([oracle.model] * 2, guides, x)
    with explained(PyroLVMError, "guide", "a list of 1", "a list of 0", "each restart"):
        to_inference_data(oracle.model, [], x)
    with explained(PyroLVMError, "num_samples", "a multiple of the 3 guides", "1000", "number"):
        to_inference_data(oracle.model, guides, x)


def test_restarts_on_different_minibatches() -> None:
    x = torch.arange(30.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 30, subsample_size=5) as index:
            z = pyro.sample("z", dist.Normal(x[index], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 30, subsample_size=5) as index:
            pyro.sample("z", dist.Normal(x[index], 1.0))

    with explained(DataError, "data 'x'", "the same data", "others", "subsample= rows"):
        to_inference_data(model, [guide, guide], x, num_samples=4)


# Labels.


def test_labels_of_a_table(oracle: LinearGaussian, x: Tensor) -> None:
    table = pd.DataFrame(x.cpu().numpy(), pd.Index(list("uvwxyz"), name="patient"), list("abcd"))
    idata = to_inference_data(
        oracle.model,
        oracle.exact_guide,
        x,
        num_samples=3,
        dims={"x": ["feature"]},
        coords={"data": table.index, "feature": table.columns},
    )
    datum = idata["observed_data"]["x"].sel(data="w")
    np.testing.assert_array_equal(datum, table.loc["w"])
    assert list(idata["posterior"]["data"].values) == list("uvwxyz")


def test_labels_of_all_data_stand_for_those_in_use(oracle: LinearGaussian, x: Tensor) -> None:
    days = pd.date_range("2026-01-01", periods=6)
    rows = torch.tensor([4, 1])
    for given in (days, days[[4, 1]]):
        idata = to_inference_data(
            oracle.model, oracle.exact_guide, x, 6, rows, num_samples=3, coords={"data": given}
        )
        assert list(idata["posterior"]["data"].values) == list(days[[4, 1]].values)


# What ArviZ makes of it.


def mean_of(noise: float) -> Callable[[Tensor], None]:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)

    return model


def posterior_of(y: Tensor, noise: float) -> dist.Normal:
    precision = 1 / 9 + len(y) / noise**2
    return dist.Normal(y.sum() / noise**2 / precision, precision**-0.5)


def exact_loo(y: Tensor, noise: float) -> Tensor:
    terms = []
    for i in range(len(y)):
        rest = posterior_of(torch.cat([y[:i], y[i + 1 :]]), noise)
        terms.append(dist.Normal(rest.loc, (rest.variance + noise**2) ** 0.5).log_prob(y[i]))
    return torch.stack(terms)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.23 on pandas 3.1
def test_loo_is_that_of_the_model_and_compare_finds_the_right_one() -> None:
    y = torch.randn(40) + 1
    containers: dict[str, Any] = {}
    for name, noise in (("right", 1.0), ("too wide", 2.0)):

        def guide(y: Tensor, noise: float = noise) -> None:
            pyro.sample("mean", posterior_of(y, noise))

        containers[name] = to_inference_data(
            mean_of(noise), guide, y, num_samples=4000, seed=0, prior=False
        )
        loo = az.loo(containers[name], pointwise=True)
        pointwise = torch.as_tensor((loo.elpd_i if ARVIZ_1 else loo.loo_i).values)
        # each within 0.02 nats: the weights' spread is at most 0.3 over 4000 draws
        torch.testing.assert_close(pointwise, exact_loo(y, noise), atol=0.02, rtol=0)
    table = az.compare(containers)
    assert list(table.index) == ["right", "too wide"]
