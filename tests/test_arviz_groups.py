"""Draws, densities and data as ArviZ's groups, against a model with exact answers."""

from pathlib import Path

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from diagnosed_programs import GROUPS, WideGuide, hierarchy, hierarchy_guide, tensor
from torch import Tensor

from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.objectives import IWAE
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(60, 2) @ oracle.loading.T + torch.randn(60, 4) * oracle.noise


@pytest.fixture
def counts() -> tuple[Tensor, Tensor]:
    return torch.poisson(torch.ones(4, 5)), torch.randn(5)


def test_groups_dims_and_coords(oracle: LinearGaussian, x: Tensor) -> None:
    idata = to_inference_data(
        oracle.model,
        oracle.exact_guide,
        x,
        num_samples=30,
        chunk_size=8,
        dims={"x": ["feature"]},
        coords={"feature": list("abcd")},
        objective=IWAE(num_particles=5, gradient="dreg"),
        seed=3,
    )
    sizes = {group: {n: v.dims for n, v in idata[group].data_vars.items()} for group in GROUPS}
    draw = ("chain", "draw", "data")
    assert sizes == {
        "posterior": {"z": (*draw, "z_dim_0")},
        "prior": {"z": (*draw, "z_dim_0")},
        "posterior_predictive": {"x": (*draw, "feature")},
        "prior_predictive": {"x": (*draw, "feature")},
        "log_likelihood": {"x": draw},
        "sample_stats": dict.fromkeys(("log_p", "log_q", "log_weight"), draw),
        "observed_data": {"x": ("data", "feature")},
    }
    posterior = idata["posterior"]
    assert dict(posterior.sizes) == {"chain": 1, "draw": 30, "data": 60, "z_dim_0": 2}
    assert posterior["data"].values.tolist() == list(range(60))
    assert idata["observed_data"]["feature"].values.tolist() == list("abcd")
    assert torch.equal(tensor(idata["observed_data"]["x"]), x)
    assert {n: idata.attrs[n] for n in ("objective", "num_particles", "gradient", "seed")} == {
        "objective": "IWAE",
        "num_particles": 5,
        "gradient": "dreg",
        "seed": 3,
    }
    assert idata.attrs["torch_version"].startswith(torch.__version__.split("+")[0])
    assert idata.attrs["arviz_version"] == az.__version__


def test_draws_have_the_right_distributions(oracle: LinearGaussian, x: Tensor) -> None:
    """Moments within 5 standard errors, all 60 data at once; 2000 draws in chunks of 600."""
    idata = to_inference_data(
        oracle.model, oracle.exact_guide, x, num_samples=2000, chunk_size=600, seed=0
    )
    q = oracle.posterior(x)
    noise = oracle.noise**2
    shared = oracle.loading @ oracle.loading.T
    predicted = torch.einsum("fi,nij,fj->nf", oracle.loading, q.covariance_matrix, oracle.loading)
    expected = {
        ("posterior", "z"): (q.loc, q.variance),
        ("prior", "z"): (torch.zeros(60, 2), torch.ones(60, 2)),
        ("posterior_predictive", "x"): (q.loc @ oracle.loading.T, predicted + noise),
        ("prior_predictive", "x"): (torch.zeros(60, 4), (shared.diagonal() + noise).expand(60, 4)),
    }
    for (group, name), (mean, variance) in expected.items():
        draws = tensor(idata[group][name])[0]
        assert ((draws.mean(0) - mean) / (variance / 2000).sqrt()).abs().max() < 5, group
        assert ((draws.var(0) / variance - 1) / (2 / 2000) ** 0.5).abs().max() < 5.5, group


def test_log_likelihood_and_weights_are_those_of_the_draws(
    oracle: LinearGaussian, x: Tensor
) -> None:
    idata = to_inference_data(oracle.model, WideGuide(oracle), x, num_samples=20, chunk_size=7)
    z = tensor(idata["posterior"]["z"])[0]
    by_hand = dist.Normal(z @ oracle.loading.T, oracle.noise).log_prob(x).sum(-1)
    torch.testing.assert_close(tensor(idata["log_likelihood"]["x"])[0], by_hand)
    stats = idata["sample_stats"]
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(tensor(stats["log_p"])[0], by_hand + prior)
    np.testing.assert_allclose(stats["log_weight"], stats["log_p"] - stats["log_q"])


def test_plates_globals_factors_and_constants(counts: tuple[Tensor, Tensor]) -> None:
    idata = to_inference_data(
        hierarchy, hierarchy_guide, *counts, num_samples=9, dims={"covariate": ["people"]}
    )
    shapes = {group: dict(idata[group].sizes) for group in ("posterior", "log_likelihood")}
    draw = {"chain": 1, "draw": 9}
    assert shapes["posterior"] == {**draw, "w_dim_0": 3, "groups": 4, "people": 5}
    assert shapes["log_likelihood"] == {**draw, "groups": 4, "people": 5}
    assert set(idata["posterior"].data_vars) == {"w", "a", "b"}
    b = idata["posterior"]["a"].values[..., None] * counts[1].numpy()
    np.testing.assert_array_equal(idata["posterior"]["b"], b)
    assert set(idata["log_likelihood"].data_vars) == set(idata["observed_data"].data_vars) == {"y"}
    assert idata["sample_stats"]["log_p"].dims == ("chain", "draw"), "one joint weight"
    assert idata["constant_data"]["covariate"].dims == ("people",)
    assert torch.equal(tensor(idata["constant_data"]["covariate"]), counts[1])
    predicted = idata["posterior_predictive"]["y"].values
    assert predicted.shape == (1, 9, 4, 5)
    assert len(np.unique(predicted[0, :, 0, 0])) > 1, "replicated, not repeated"


def test_dtype_is_kept() -> None:
    torch.set_default_dtype(torch.float32)

    def model(x: Tensor, count: Tensor) -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
            k = pyro.sample("k", dist.Bernoulli(torch.full((3,), 0.5)))
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)
            pyro.sample("count", dist.Poisson(z.exp()), obs=count)

    def guide(x: Tensor, count: Tensor) -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
            pyro.sample("k", dist.Bernoulli(torch.full((3,), 0.5)))

    count = torch.tensor([0, 1, 2])
    idata = to_inference_data(model, guide, torch.zeros(3), count, num_samples=5)
    assert idata["posterior"]["z"].dtype == np.float32
    assert idata["sample_stats"]["log_weight"].dtype == np.float32
    assert idata["observed_data"]["count"].dtype == np.int64


def test_masked_data_are_one_variable() -> None:
    x = torch.tensor([0.5, torch.nan, -0.3])
    seen = ~x.isnan()

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def guide(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x_unobserved", dist.Normal(z, 1.0).mask(~seen))

    idata = to_inference_data(model, guide, x, seen, num_samples=7)
    assert set(idata["posterior"].data_vars) == {"z", "x_unobserved"}
    for group in ("observed_data", "log_likelihood", "posterior_predictive", "prior_predictive"):
        assert set(idata[group].data_vars) == {"x"}, group
    assert idata["log_likelihood"]["x_rows"].values.tolist() == [0, 2]
    assert np.isfinite(idata["posterior_predictive"]["x"].values).all()
    assert torch.equal(tensor(idata["constant_data"]["seen"]), seen)


def answers(persons: int, items: int) -> tuple[Tensor, Tensor]:
    ability, easiness = torch.randn(persons, 1), torch.linspace(-1.0, 1.0, items)
    right = torch.bernoulli(torch.sigmoid(ability + easiness))
    return right, torch.rand(persons, items) < 0.6


def test_loo_of_missing_data_is_that_of_those_there(tmp_path: Path) -> None:
    """A rectangle of answers with holes, and the same answers one below the other."""
    right, seen = answers(30, 6)
    column = seen.nonzero()[:, 1]

    def one_a_cell() -> None:
        with pyro.plate("item", 6, dim=-1):
            easiness = pyro.sample("easiness", dist.Normal(0.0, 1.0))
            with pyro.plate("person", 30, dim=-2):
                pyro.sample("x", dist.Bernoulli(logits=easiness).mask(seen), obs=right)

    def one_a_row() -> None:
        with pyro.plate("item", 6, dim=-1):
            easiness = pyro.sample("easiness", dist.Normal(0.0, 1.0))
        with pyro.plate("answer", len(column), dim=-1):
            pyro.sample("x", dist.Bernoulli(logits=easiness[..., column]), obs=right[seen])

    def guide() -> None:
        with pyro.plate("item", 6, dim=-1):
            pyro.sample("easiness", dist.Normal(0.0, 0.4))

    labels = {"item": [f"item {i}" for i in range(6)]}
    cells = to_inference_data(one_a_cell, guide, num_samples=200, coords=labels, seed=0)
    rows = to_inference_data(one_a_row, guide, num_samples=200, seed=0)
    found, wanted = az.loo(cells), az.loo(rows)
    assert found["n_data_points"] == seen.sum()
    for part in (0, 1, 2):  # elpd, its standard error, effective number of parameters
        assert found.iloc[part] == pytest.approx(wanted.iloc[part])
    cells.to_netcdf(str(tmp_path / "a.nc"), engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", group="log_likelihood", engine="h5netcdf") as kept:
        assert kept["x_item"].values.tolist() == [f"item {i}" for i in column]
        assert kept["x_person"].values.tolist() == seen.nonzero()[:, 0].tolist()


def test_groups_can_be_left_out(oracle: LinearGaussian, x: Tensor) -> None:
    idata = to_inference_data(
        oracle.model,
        oracle.exact_guide,
        x,
        num_samples=3,
        posterior_predictive=False,
        prior=False,
        log_likelihood=False,
    )
    names = {str(name).strip("/") for name in idata.groups} if AZ_1 else set(idata.groups())
    assert names - {""} == {"posterior", "sample_stats", "observed_data"}


AZ_1 = int(az.__version__.split(".")[0]) >= 1
