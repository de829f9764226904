"""Posterior predictive p-values and LOO-PIT, where the predictive distributions are known."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyro_lvm.diagnostics import (
    LooPit,
    PredictiveCheck,
    loo_pit,
    plot_loo_pit,
    plot_predictive_check,
    predictive_check,
    to_inference_data,
)
from pyro_lvm.diagnostics.verdict import Status
from pyro_lvm.distributions.implicit import Implicit
from pyro_lvm.errors import DensityError, PyroLVMError
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


def noise_of(found: Tensor, num_samples: int) -> Tensor:
    """Five standard errors of shares of so many draws, and what the random point adds."""
    return 5 * (0.25 / num_samples) ** 0.5 + 1 / num_samples + 0 * found


def mean_model(y: Tensor, noise: float = 1.0) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, noise), obs=y)


def posterior(y: Tensor, noise: float = 1.0) -> dist.Normal:
    precision = 1 / 9 + len(y) / noise**2
    return dist.Normal(y.sum() / noise**2 / precision, precision**-0.5)


def mean_guide(y: Tensor, noise: float = 1.0) -> None:
    """A little off and too wide: the weights correct it."""
    q = posterior(y, noise)
    pyro.sample("mean", dist.Normal(q.loc + 0.3 * q.scale, 1.3 * q.scale))


# LOO-PIT.


def test_shared_latents_are_weighed() -> None:
    y = torch.randn(20) + 1
    found = loo_pit(mean_model, mean_guide, y, num_samples=4000)
    exact = []
    for i in range(len(y)):
        rest = posterior(torch.cat([y[:i], y[i + 1 :]]))
        exact.append(dist.Normal(rest.loc, (rest.variance + 1) ** 0.5).cdf(y[i]))
    error = (found.values["y"] - torch.stack(exact)).abs()
    assert (error < 1.5 * noise_of(error, 4000)).all(), "1.5: weights cost half of the draws"
    assert found.khat["y"].shape == (20,)
    assert found.khat_share == 0


def test_data_with_latents_of_their_own_are_predicted_from_the_prior() -> None:
    oracle = LinearGaussian(torch.randn(3, 2), torch.tensor([0.8, 1.0, 1.2]))
    x = torch.randn(15, 2) @ oracle.loading.T + torch.randn(15, 3) * oracle.noise
    found = loo_pit(oracle.model, oracle.exact_guide, x, num_samples=2000, chunk_size=300)
    scale = (oracle.loading.square().sum(1) + oracle.noise**2).sqrt()
    error = (found.values["x"] - dist.Normal(0.0, scale).cdf(x)).abs()
    assert (error < noise_of(error, 2000)).all()
    assert (found.khat["x"] == 0).all()
    assert found.curves["x"].labels == ("x[0]", "x[1]", "x[2]")


def test_entries_of_an_inner_plate_are_left_out_one_by_one() -> None:
    """The other entry of the row is known: N(other / 2, 1.5)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("steps", 2, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 3, 3**-0.5))

    x = torch.randn(10, 2)
    found = loo_pit(model, guide, x, num_samples=4000)
    exact = dist.Normal(x.flip(1) / 2, 1.5**0.5).cdf(x)
    error = (found.values["x"] - exact).abs()
    assert found.values["x"].shape == (10, 2)
    assert (error < 2 * noise_of(error, 4000)).all()


def poisson(y: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def poisson_guide(y: Tensor) -> None:
    pyro.sample("rate", dist.Gamma(2.0 + y.sum(), 1.0 + len(y)))


def test_values_are_uniform_for_counts_and_tell_when_they_spread_too_far() -> None:
    right = loo_pit(poisson, poisson_guide, torch.poisson(torch.full((300,), 2.0)))
    assert right.verdict().status is Status.PASS
    values = right.values["y"].sort().values
    steps = (torch.arange(300) + 0.5) / 300
    assert (values - steps).abs().max() < 1.95 / 300**0.5, "Kolmogorov's distance at 0.001"
    spread = torch.poisson(torch.distributions.Gamma(1.0, 0.5).sample((300,)))
    wrong = loo_pit(poisson, poisson_guide, spread)
    assert wrong.verdict().status is Status.FAIL
    assert wrong.summary()["pit_p_y"] < 0.001


def test_missing_entries_say_nothing() -> None:
    x = torch.randn(200, 2)
    x[::2, 1] = torch.nan

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            likelihood = dist.Normal(z[..., None], 1.0).expand([*z.shape, 2])
            pyro.sample("x", likelihood.mask(~x.isnan()).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.1))

    found = loo_pit(model, guide, x, num_samples=200)
    assert found.values["x"].isfinite().all()
    assert found.verdict().status is Status.PASS
    checked = predictive_check(model, guide, x, num_samples=50)
    assert all(drawn.isfinite().all() for drawn in checked.replicated.values())
    torch.testing.assert_close(checked.observed["x: mean"], x.nanmean())


def test_weights_that_fail_are_told() -> None:
    def narrow(y: Tensor) -> None:
        q = posterior(y)
        pyro.sample("mean", dist.Normal(q.loc + 3 * q.scale, 0.3 * q.scale))

    found = loo_pit(mean_model, narrow, torch.randn(20), num_samples=8000)
    assert found.khat_share > 0.5  # of 500 draws k-hat tells it 11 times of 12
    assert found.verdict().status is Status.WARN
    assert "weights" in found.verdict().finding


def test_refusals() -> None:
    def implicit(y: Tensor) -> None:
        pyro.sample("mean", Implicit(torch.randn))

    with pytest.raises(DensityError):
        loo_pit(mean_model, implicit, torch.randn(3))
    with pytest.raises(PyroLVMError, match="num_samples: expected an integer >= 1, got 0"):
        loo_pit(mean_model, mean_guide, torch.randn(3), num_samples=0)


# Posterior predictive p-values.


def test_p_values_of_a_known_predictive() -> None:
    """T = mean: new means are N(m, s^2 + 1 / n); of a largest entry that is far out, p is 0."""
    y = torch.randn(30) + 1
    y[0] = 9.0

    def guide(y: Tensor) -> None:
        pyro.sample("mean", posterior(y))

    found = predictive_check(mean_model, guide, y, num_samples=2000, chunk_size=300)
    q = posterior(y)
    exact = 1 - dist.Normal(q.loc, (q.variance + 1 / 30) ** 0.5).cdf(y.mean())
    assert abs(found.p_values["y: mean"] - exact) < 5 * 0.5 / 2000**0.5
    assert "y: largest" in found.off
    assert found.verdict().status is Status.WARN
    assert set(found.summary()) == {f"p_y: {name}" for name in ("mean", "sd", "least", "largest")}


@pytest.mark.parametrize("in_plate", [True, False])
def test_a_single_value(in_plate: bool) -> None:
    """Of a batch of one, or a site outside any plate: its spread is no finding."""

    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        if in_plate:
            with pyro.plate("data", 1):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        else:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[0])

    found = predictive_check(model, mean_guide, torch.ones(1), num_samples=200)
    assert found.p_values["y: sd"] == 0.5
    assert found.verdict().status is Status.PASS


def test_own_statistics_and_ties() -> None:
    def zeros(values: Tensor) -> Tensor:
        return (values == 0).double().sum(1)

    y = torch.tensor([0, 0, 1, 0])

    def model(y: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("y", dist.Bernoulli(p), obs=y.double())

    def guide(y: Tensor) -> None:
        pyro.sample("p", dist.Beta(2.0, 4.0))

    found = predictive_check(model, guide, y, statistics={"zeros": zeros}, num_samples=4000)
    assert list(found.p_values) == ["y: zeros"]
    counts = torch.arange(5.0)
    chances = dist.BetaBinomial(4.0, 2.0, 4).log_prob(counts).exp()
    exact = chances[4] + chances[3] / 2
    assert abs(found.p_values["y: zeros"] - exact) < 5 * 0.5 / 4000**0.5
    assert found.verdict().status is Status.PASS


def test_a_minibatch_and_scales_change_nothing() -> None:
    oracle = LinearGaussian(torch.randn(3, 2), torch.ones(3))
    x = torch.randn(40, 2) @ oracle.loading.T + torch.randn(40, 3)
    how: dict[str, Any] = {"size": 40, "subsample": torch.arange(10), "num_samples": 100}
    with poutine.scale(scale=1.0):
        assert loo_pit(oracle.model, oracle.exact_guide, x, **how).values["x"].shape == (10, 3)
        checked = predictive_check(oracle.model, oracle.exact_guide, x, **how)
    torch.testing.assert_close(checked.observed["x: mean"], x[:10].mean())


def test_figures(tmp_path: Path) -> None:
    pit = LooPit({"x": torch.rand(50, 2)}, {"x": torch.zeros(50)}, {"x": 1}, 100)
    plot_loo_pit(pit).savefig(tmp_path / "pit.png")
    check = PredictiveCheck({"x: mean": torch.tensor(0.5)}, {"x: mean": torch.rand(100)})
    plot_predictive_check(check).savefig(tmp_path / "check.png")
    assert all((tmp_path / f).stat().st_size > 3000 for f in ("pit.png", "check.png"))


def test_what_stands_under_a_mask_is_no_datum() -> None:
    """A million in a third of the cells, which the model leaves out: all is as without them."""
    y = dist.Normal(0.3, 1.0).icdf((torch.arange(60) + 0.5) / 60)
    is_known = torch.arange(60) % 3 > 0

    def masked(y: Tensor, noise: float = 1.0) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(y)), poutine.mask(mask=is_known):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)

    def guide(y: Tensor, noise: float = 1.0) -> None:
        pyro.sample("mean", posterior(y[is_known], noise))

    filled = y.masked_fill(~is_known, 1e6)
    assert predictive_check(masked, guide, filled, num_samples=200).off == []
    assert loo_pit(masked, guide, filled, num_samples=200).verdict().status is Status.PASS
    data = to_inference_data(masked, guide, filled, num_samples=5)
    assert "constant_data" not in data  # the argument is what is observed
    assert data["observed_data"]["y"].isnull().values.tolist() == (~is_known).tolist()
    counts = torch.arange(60)
    whole = to_inference_data(masked, guide, counts, num_samples=5)["observed_data"]["y"].values
    assert whole[1:3].tolist() == [1.0, 2.0]
