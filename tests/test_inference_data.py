"""The last stage of the bridge by itself: named arrays into ArviZ, of either major version.

Free of torch: ``make test-arviz1`` runs this file with ArviZ 1, which needs Python 3.12.
"""

from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray

from pyro_lvm.errors import PyroLVMError
from pyro_lvm.inference_data import Groups, Variable, as_container

ARVIZ_1 = int(az.__version__.split(".")[0]) >= 1
NUM_DRAWS, NUM_DATA = 400, 8
ALL_GROUPS = {
    "posterior": ("mu",),
    "sample_stats": ("log_weight",),
    "log_likelihood": ("y",),
    "posterior_predictive": ("y",),
    "prior": ("mu",),
    "prior_predictive": ("y",),
    "observed_data": ("y",),
    "constant_data": ("w",),
}


def normal_draws(shift: float = 0.0) -> dict[str, dict[str, Variable]]:
    """A mean of eight Normal data, drawn from its posterior; ``shift`` moves the model's data."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=NUM_DATA)
    mu = y.mean() + rng.normal(size=NUM_DRAWS) / NUM_DATA**0.5
    loc = mu[:, None] + shift
    log_likelihood = -0.5 * (y - loc) ** 2 - 0.5 * np.log(2 * np.pi)
    noise = rng.normal(size=(2, NUM_DRAWS, NUM_DATA))
    day = ("day",)
    return {
        "posterior": {"mu": Variable((), mu)},
        "sample_stats": {"log_weight": Variable((), np.zeros(NUM_DRAWS))},
        "log_likelihood": {"y": Variable(day, log_likelihood)},
        "posterior_predictive": {"y": Variable(day, loc + noise[0])},
        "prior": {"mu": Variable((), rng.normal(size=NUM_DRAWS))},
        "prior_predictive": {"y": Variable(day, noise[1])},
        "observed_data": {"y": Variable(day, y)},
        "constant_data": {"w": Variable(day, np.arange(NUM_DATA))},
    }


def names(container: Any) -> set[str]:
    groups = container.groups if ARVIZ_1 else container.groups()
    return {str(group).strip("/") for group in groups} - {""}


def test_kind_groups_dims_and_chains() -> None:
    container = as_container(normal_draws(), attrs={"seed": 1}, num_chains=4)
    assert type(container) is (xr.DataTree if ARVIZ_1 else az.InferenceData)
    assert names(container) == set(ALL_GROUPS)
    for group, variables in ALL_GROUPS.items():
        assert tuple(container[group].data_vars) == variables
    assert dict(container["log_likelihood"].sizes) == {"chain": 4, "draw": 100, "day": 8}
    assert container["observed_data"]["y"].dims == ("day",)
    assert container.attrs["seed"] == 1
    mu = container["posterior"]["mu"].values
    assert np.array_equal(mu.reshape(-1), normal_draws()["posterior"]["mu"].values)


def test_summary_and_rhat_of_chains() -> None:
    container = as_container(normal_draws(), num_chains=4)
    table = az.summary(container, round_to="none")
    assert float(table["r_hat"].iloc[0]) < 1.02
    assert float(table["ess_bulk"].iloc[0]) > 200
    apart = normal_draws()
    apart["posterior"]["mu"].values[:100] += 3.0  # one restart elsewhere
    moved = az.summary(as_container(apart, num_chains=4), round_to="none")
    assert float(moved["r_hat"].iloc[0]) > 1.5


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # ArviZ 0.23 on pandas 3.1
def test_loo_and_compare() -> None:
    """Leave-one-out of a Normal mean is known: N(mean of the others, 1 + 1/7)."""
    draws = normal_draws()
    y = draws["observed_data"]["y"].values
    others = (y.sum() - y) / (NUM_DATA - 1)
    variance = 1 + 1 / (NUM_DATA - 1)
    exact = (-0.5 * (y - others) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum()
    right = as_container(draws, num_chains=4)
    loo = az.loo(right, pointwise=True)
    error = 0.06  # standard deviation over sets of 400 draws
    assert abs((loo.elpd if ARVIZ_1 else loo.elpd_loo) - exact) < 4 * error
    assert len(np.asarray(loo.pareto_k)) == NUM_DATA
    shifted = as_container(normal_draws(shift=2.0), num_chains=4)
    table = az.compare({"right": right, "shifted": shifted})
    assert table.index[0] == "right"


def test_sign_of_smoothing() -> None:
    """0.x takes log-weights, 1.x log-likelihoods, which are minus log-weights."""
    u = (np.arange(1000) + 0.5) / 1000
    log_weights = -0.5 * np.log(u)  # k = 1/2
    if ARVIZ_1:
        from arviz_stats.base import array_stats

        khat = array_stats.psislw(-log_weights)[1]
    else:
        khat = az.psislw(log_weights)[1]
    assert abs(float(khat) - 0.5) < 0.01  # quantiles have no noise: the bias of the fit


LABELS: dict[str, Any] = {
    "days": pd.date_range("2026-01-01", periods=NUM_DATA, name="day"),
    "strings": pd.Index(list("abcdefgh")),
    "categories": pd.CategoricalIndex(list("aabbccdd")),
    "integers": pd.RangeIndex(5, 5 + NUM_DATA),
    "list": [0.5 * i for i in range(NUM_DATA)],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_netcdf_keeps_all(labels: Any, tmp_path: Path) -> None:
    container = as_container(normal_draws(), {"day": labels}, {"seed": 1, "rates": [0.5, 0.7]}, 2)
    assert list(container["posterior_predictive"]["day"].values) == list(np.asarray(labels))
    path = str(tmp_path / "draws.nc")
    container.to_netcdf(path, engine="h5netcdf")
    loaded = az.from_netcdf(path, engine="h5netcdf")
    check_same(loaded, container)
    assert list(loaded.attrs["rates"]) == [0.5, 0.7]


def test_zarr_keeps_all(tmp_path: Path) -> None:
    """ArviZ 0.x reads and writes zarr 2 alone; as a tree its groups go to zarr 3."""
    pytest.importorskip("zarr")
    container = as_container(normal_draws(), {"day": LABELS["days"]}, {"seed": 1}, 2)
    tree = container if ARVIZ_1 else container.to_datatree()
    tree.to_zarr(str(tmp_path / "draws.zarr"), consolidated=False)
    loaded = xr.open_datatree(str(tmp_path / "draws.zarr"), engine="zarr", consolidated=False)
    check_same(loaded, tree)


def check_same(loaded: Any, container: Any) -> None:
    for group, variables in ALL_GROUPS.items():
        for name in variables:
            found, expected = loaded[group][name], container[group][name]
            assert found.dims == expected.dims
            assert np.array_equal(found.values, expected.values), (group, name)
            for dim in expected.dims:
                assert list(found[dim].values) == list(expected[dim].values), dim
    assert loaded.attrs["seed"] == container.attrs["seed"] == 1


BAD: dict[str, tuple[Any, str]] = {
    "several levels": (pd.MultiIndex.from_product([[0, 1], list("abcd")]), "got tuple objects"),
    "periods": (pd.period_range("2026-01", periods=NUM_DATA, freq="M"), "got Period objects"),
    "a table": (np.zeros((NUM_DATA, 2)), "got 2 dims of them"),
    "too few": ([1, 2], "expected 8 labels, got 2"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_labels_that_do_not_do(case: tuple[Any, str]) -> None:
    labels, message = case
    with pytest.raises(PyroLVMError, match=rf"coords of 'day': .*{message}"):
        as_container(normal_draws(), {"day": labels})


def test_dims_of_two_lengths() -> None:
    values: NDArray[np.float64] = np.zeros((5, 3))
    groups: Groups = {
        "posterior": {"a": Variable(("d",), values), "b": Variable(("d",), values[:, :2])}
    }
    with pytest.raises(PyroLVMError, match="dim 'd': expected one length everywhere, got 3 and"):
        as_container(groups)
