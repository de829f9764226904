"""Evidence, posterior draws and the ArviZ bridge against a model with exact answers."""

import subprocess
import sys
import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.diagnostics import (
    log_evidence,
    pareto_khat,
    plot_khat,
    sample_posterior,
    to_inference_data,
)
from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.running_weights import RunningWeights
from pyro_lvm.errors import PlateError, PyroLVMError
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.weights import effective_sample_size, khat_of_tail, log_mean_exp

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def oracle(float64: torch.dtype) -> LinearGaussian:
    return LinearGaussian(torch.randn(4, 2), torch.tensor([0.8, 1.0, 1.2, 0.9]))


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(60, 2) @ oracle.loading.T + torch.randn(60, 4) * oracle.noise


class WideGuide(PyroModule):
    """The posterior with 1.3 times its spread: finite weights, one bound a datum."""

    def __init__(self, oracle: LinearGaussian) -> None:
        super().__init__()
        self.oracle = oracle
        self.largest = 0

    def forward(self, x: Tensor, size: Any = None, subsample: Any = None) -> None:
        with pyro.plate("data", size or len(x), subsample=subsample) as index:
            q = self.oracle.posterior(x if subsample is None else x[index])
            wide = dist.MultivariateNormal(q.loc, 1.3**2 * q.covariance_matrix)
            z = pyro.sample("z", wide)
        self.largest = max(self.largest, len(z) if z.dim() == 3 else 1)


# Evidence.


def test_log_evidence_is_exact_within_its_standard_error(oracle: LinearGaussian, x: Tensor) -> None:
    estimate = log_evidence(oracle.model, WideGuide(oracle), x, num_samples=2000)
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.shape == (60,)
    assert z.abs().max() < 4
    assert 0.7 < z.square().mean().sqrt() < 1.3, "60 z-scores: root mean square 1 +- 0.09"
    total = (estimate.total() - oracle.log_evidence(x).sum()) / estimate.total_standard_error()
    assert total.abs() < 4
    assert estimate.mean() == estimate.value.mean()
    assert estimate.mean_standard_error() == estimate.value.std() / 60**0.5
    assert (estimate.khat < 0.7).all()
    assert (estimate.effective_sample_size > 1000).all()


def test_log_evidence_of_the_exact_guide_has_no_error(oracle: LinearGaussian, x: Tensor) -> None:
    estimate = log_evidence(oracle.model, oracle.exact_guide, x, num_samples=50, chunk_size=7)
    torch.testing.assert_close(estimate.value, oracle.log_evidence(x), atol=1e-9, rtol=0)
    assert (estimate.standard_error < 1e-6).all()
    torch.testing.assert_close(estimate.effective_sample_size, torch.full((60,), 50.0))


def test_chunks_add_up_to_the_whole() -> None:
    log_weights = 2 * torch.randn(1000, 5) - 700
    whole = RunningWeights.of(log_weights, 1000)
    parts = [RunningWeights.of(part, 1000) for part in log_weights.split(64)]
    chunked = reduce(RunningWeights.joined, parts)
    for name in ("log_mean", "log_mean_error", "effective_sample_size", "largest"):
        torch.testing.assert_close(getattr(chunked, name), getattr(whole, name))
    torch.testing.assert_close(whole.log_mean, log_mean_exp(log_weights))
    torch.testing.assert_close(khat_of_tail(whole.largest), pareto_khat(log_weights))
    torch.testing.assert_close(whole.effective_sample_size, effective_sample_size(log_weights))
    weights = (log_weights - log_weights.max()).exp()
    by_hand = weights.std(0) / weights.mean(0) / 1000**0.5
    torch.testing.assert_close(whole.log_mean_error, by_hand)
    torch.testing.assert_close(chunked.moments.mean, log_weights.mean(0))
    torch.testing.assert_close(chunked.moments.standard_error, log_weights.std(0) / 1000**0.5)


@pytest.mark.parametrize("chunk_size", [1, 64, 300, 10_000])
def test_chunk_size_changes_memory_and_not_the_answer(
    oracle: LinearGaussian, x: Tensor, chunk_size: int
) -> None:
    guide = WideGuide(oracle)
    estimate = log_evidence(oracle.model, guide, x, num_samples=300, chunk_size=chunk_size)
    assert guide.largest == min(300, max(2, chunk_size)), "the first look takes two"
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.abs().max() < 4.5


def test_default_chunk_is_smaller_for_a_bigger_batch(oracle: LinearGaussian, x: Tensor) -> None:
    sizes = [
        Chunks(ELBO, oracle.model, WideGuide(oracle), (x.repeat(n, 1),), {}, 5000).chunk_size
        for n in (1, 10, 1000)
    ]
    assert sizes[0] > sizes[1] > sizes[2] >= 1
    for rows, chunk_size in zip((60, 600, 60_000), sizes, strict=True):
        assert chunk_size * rows * 4 <= 2**25, "x alone stays within the bound"


def test_log_evidence_of_one_minibatch_in_all_chunks(oracle: LinearGaussian) -> None:
    """Chunks of a plate that draws its own minibatch must not mix several minibatches."""
    x = torch.arange(40.0)[:, None] * torch.ones(4)  # so far apart that evidence names the row

    def model(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=8) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x[index])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=8) as index:
            pyro.sample("z", oracle.posterior(x[index]))

    estimate = log_evidence(model, guide, x, num_samples=20, chunk_size=3)
    exact = oracle.log_evidence(x)
    nearest = (estimate.value[:, None] - exact).abs().min(1)
    assert (nearest.values < 1e-8).all()
    assert len(nearest.indices.unique()) == 8
    torch.testing.assert_close(estimate.total(), 5 * exact[nearest.indices].sum())


def test_log_evidence_refuses_what_it_cannot_do(oracle: LinearGaussian, x: Tensor) -> None:
    with pytest.raises(PyroLVMError, match=r"method: expected 'iwae', 'ais'.*, got 'mcmc'.\nTry: "):
        log_evidence(oracle.model, oracle.exact_guide, x, method="mcmc")
    with pytest.raises(PyroLVMError, match="num_samples: expected an integer >= 1, got 0"):
        log_evidence(oracle.model, oracle.exact_guide, x, num_samples=0)
    with pytest.raises(PyroLVMError, match="chunk_size: expected an integer >= 1, got -1"):
        log_evidence(oracle.model, oracle.exact_guide, x, chunk_size=-1)


@pytest.mark.parametrize("chunk_size", [1, 5])
def test_log_evidence_of_a_minibatch_beside_a_global_latent(chunk_size: int) -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("x", dist.Normal(w, 1.0), obs=torch.zeros(2))

    def guide() -> None:
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(PlateError, match="plate 'data'"):
        log_evidence(model, guide, num_samples=20, chunk_size=chunk_size)


# Posterior draws.


def test_sample_posterior_draws_from_the_guide(oracle: LinearGaussian, x: Tensor) -> None:
    draws = sample_posterior(
        oracle.model, oracle.exact_guide, x, num_samples=2001, chunk_size=400, device="cpu"
    )
    assert set(draws) == {"z"}
    assert draws["z"].shape == (2001, 60, 2)
    assert draws["z"].dtype == torch.float64
    assert draws["z"].device.type == "cpu"
    exact = oracle.posterior(x)
    z = (draws["z"].mean(0).to(x.device) - exact.loc) / (exact.variance / 2001).sqrt()
    assert z.abs().max() < 4.5
    assert len(draws["z"][:, 0, 0].unique()) == 2001, "chunks repeat no draw"


def hierarchy(y: Tensor, covariate: Tensor) -> None:
    """A global latent, a latent in one plate, another in the two crossed, and a factor."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    pyro.factor("penalty", -0.1 * w.square().sum(-1))
    groups = pyro.plate("groups", 4, dim=-2)
    people = pyro.plate("people", 5, dim=-1)
    with groups:
        a = pyro.sample("a", dist.Normal(w.sum(-1), 1.0))
    with groups, people:
        b = pyro.deterministic("b", a * covariate)
        pyro.sample("y", dist.Poisson((0.1 * b).exp()), obs=y)


def hierarchy_guide(y: Tensor, covariate: Tensor) -> None:
    helper = pyro.sample(
        "helper", dist.Normal(0.0, 1.0).expand([3]).to_event(1), infer={"is_auxiliary": True}
    )
    pyro.sample("w", dist.Delta(helper, event_dim=1))
    with pyro.plate("groups", 4, dim=-2):
        pyro.sample("a", dist.Normal(0.0, 0.5))


@pytest.fixture
def counts() -> tuple[Tensor, Tensor]:
    return torch.poisson(torch.ones(4, 5)), torch.randn(5)


def test_sites_have_the_plates_they_are_in(counts: tuple[Tensor, Tensor]) -> None:
    draws = sample_posterior(hierarchy, hierarchy_guide, *counts, num_samples=6, chunk_size=4)
    assert {name: tuple(draw.shape) for name, draw in draws.items()} == {
        "w": (6, 3),
        "a": (6, 4, 1)[:2],
    }


# The ArviZ bridge.


def tensor(array: Any) -> Tensor:
    """What a data array holds, on the device of the test."""
    return torch.as_tensor(array.values)


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


GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
)


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
    assert shapes["posterior"] == {**draw, "w_dim_0": 3, "groups": 4}
    assert shapes["log_likelihood"] == {**draw, "groups": 4, "people": 5}
    assert set(idata["posterior"].data_vars) == {"w", "a"}
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
    assert (idata["log_likelihood"]["x"].values[0, :, 1] == 0).all()
    assert np.isfinite(idata["posterior_predictive"]["x"].values).all()
    assert torch.equal(tensor(idata["constant_data"]["seen"]), seen)


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


# Figures.


def test_plot_khat(tmp_path: Path) -> None:
    khat = torch.cat([torch.linspace(-0.4, 0.69, 200), torch.tensor([1.9, torch.inf, torch.nan])])
    figure = plot_khat(khat)
    axes = figure.axes[0]
    counted = sum(bar.get_height() for bar in axes.patches)
    assert counted == 201, "every finite value is in a bar"
    assert not any(
        bar.get_x() < 0.699 and bar.get_x() + bar.get_width() > 0.701 for bar in axes.patches
    )
    assert axes.get_title().endswith("of 203 (1 %); not finite: 2")
    figure.savefig(tmp_path / "khat.png")
    assert (tmp_path / "khat.png").stat().st_size > 5000
    assert (
        plot_khat(torch.tensor([torch.inf]))
        .axes[0]
        .get_title()
        .startswith("k-hat above 0.7: 1 of 1")
    )


def test_import_loads_no_plotting() -> None:
    code = "import sys, pyro_lvm.diagnostics; print({'matplotlib', 'arviz'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
