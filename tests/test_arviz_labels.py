"""Labels of rows and dims, seeds and files of ArviZ's groups, and what ArviZ makes of them."""

import warnings
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnosed_programs import GROUPS, tensor
from torch import Tensor

from pyro_lvm.diagnostics import pareto_khat, to_inference_data
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.objectives import ELBO
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(60, 2) @ oracle.loading.T + torch.randn(60, 4) * oracle.noise


def test_a_minibatch_carries_its_indices(oracle: LinearGaussian, x: Tensor) -> None:
    index = torch.tensor([7, 3, 11])
    idata = to_inference_data(oracle.model, oracle.exact_guide, x, 60, index, num_samples=4)
    assert idata["posterior"]["data"].values.tolist() == [7, 3, 11]
    assert torch.equal(tensor(idata["observed_data"]["x"]), x[index])


def test_a_random_minibatch_is_one(oracle: LinearGaussian) -> None:
    x = torch.arange(30.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 30, subsample_size=5) as index:
            z = pyro.sample("z", dist.Normal(x[index], 1e-3))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 30, subsample_size=5) as index:
            pyro.sample("z", dist.Normal(x[index], 1e-3))

    idata = to_inference_data(model, guide, x, num_samples=9, chunk_size=2)
    rows = idata["posterior"]["data"].values
    np.testing.assert_array_equal(idata["observed_data"]["x"], rows)
    for group in ("posterior", "prior"):
        expected = np.broadcast_to(rows, (1, 9, 5))
        np.testing.assert_allclose(idata[group]["z"], expected, atol=0.01)  # 10 standard devs


def test_a_plate_named_like_a_variable() -> None:
    def model(scale: Tensor, x: Tensor) -> None:
        with pyro.plate("x", 2):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("y", dist.Normal(z, 1.0), obs=x + 1)

    def guide(scale: Tensor, x: Tensor) -> None:
        with pyro.plate("x", 2):
            pyro.sample("z", dist.Normal(0.0, scale))

    idata = to_inference_data(model, guide, torch.ones(2), torch.zeros(2), num_samples=3)
    assert idata["posterior"]["z"].dims == ("chain", "draw", "x_dim")
    assert idata["constant_data"]["x"].dims == ("x_dim_0",)


def test_seed_repeats_the_draws_and_leaves_the_random_state(
    oracle: LinearGaussian, x: Tensor
) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        to_inference_data(oracle.model, oracle.exact_guide, x, num_samples=5, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    for group in ("posterior", "prior", "posterior_predictive"):
        assert first[group].equals(again[group])
        assert not first[group].equals(other[group])


def test_netcdf_round_trip(oracle: LinearGaussian, x: Tensor, tmp_path: Path) -> None:
    idata = to_inference_data(
        oracle.model, oracle.exact_guide, x, num_samples=5, objective=ELBO(), seed=1
    )
    path = tmp_path / "posterior.nc"
    idata.to_netcdf(str(path), engine="h5netcdf")
    loaded = az.from_netcdf(str(path), engine="h5netcdf")
    for group in GROUPS:
        assert loaded[group].identical(idata[group]), group
    for name in ("objective", "num_particles", "seed", "pyro-ppl_version"):
        assert loaded.attrs[name] == idata.attrs[name]


def test_arviz_takes_it(oracle: LinearGaussian, x: Tensor) -> None:
    idata = to_inference_data(oracle.model, oracle.exact_guide, x, num_samples=200, seed=0)
    summary = az.summary(idata, var_names=["z"])
    assert len(summary) == 120
    with warnings.catch_warnings():  # of k-hat above its limit, as it may be
        warnings.simplefilter("ignore", UserWarning)
        loo = az.loo(idata, pointwise=True, reff=1.0)  # the draws are independent
    assert loo.n_data_points == 60
    # PSIS takes minus the log-likelihood as log-weight, per datum: the same k-hat as ours.
    log_likelihood = tensor(idata["log_likelihood"]["x"])[0]
    ours = pareto_khat(-log_likelihood)
    torch.testing.assert_close(tensor(loo.pareto_k), ours, atol=1e-6, rtol=0)


def test_wrong_labels_are_named(oracle: LinearGaussian, x: Tensor) -> None:
    def bridge(**how: Any) -> None:
        to_inference_data(oracle.model, oracle.exact_guide, x, num_samples=3, **how)

    with pytest.raises(PyroLVMError, match=r"dims of 'x': expected 1 names, got \['data', 'f'\]"):
        bridge(dims={"x": ["data", "f"]})
    with pytest.raises(PyroLVMError, match="dim 'data': expected one length everywhere"):
        bridge(dims={"x": ["data"]})
    with pytest.raises(PyroLVMError, match="dims of 'q': expected a variable among"):
        bridge(dims={"q": ["f"]})
    with pytest.raises(PyroLVMError, match="coords of 'data': expected 60 labels, got 2"):
        bridge(coords={"data": [1, 2]})
    with pytest.raises(PyroLVMError, match="coords of 'row': expected a dim among"):
        bridge(coords={"row": [1, 2]})
