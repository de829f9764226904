"""Guides as proposals: chains and weighted draws of the exact posterior, and what they refuse."""

from collections.abc import Callable
from typing import Any

import arviz as az
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, PlateError, ProgramError, PyroLVMError
from pyro_lvm.mcmc import IndependentMetropolisHastings
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

Guide = Callable[..., None]
ONLY_POSTERIOR = {"posterior_predictive": False, "prior": False, "log_likelihood": False}


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(20, 2) @ oracle.loading.T + torch.randn(20, 4) * oracle.noise


def off(oracle: LinearGaussian, shift: float = 0.5, widening: float = 1.4) -> Guide:
    """The posterior, moved by some of its spread and widened."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            q = oracle.posterior(x)
            spread = q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
            covariance = widening**2 * q.covariance_matrix
            pyro.sample("z", dist.MultivariateNormal(q.loc + shift * spread, covariance))

    return guide


def model_of_mean(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def guide_of_mean(x: Tensor) -> None:
    pyro.sample("mean", dist.StudentT(5.0, x.mean(), 0.5))


# The chain.


def test_acceptance_rate_is_that_of_quadrature() -> None:
    scale, steps, chains = 1.5, 500, 200
    z = dist.Normal(0.0, scale).sample((steps, chains))
    log_weights = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(0.0, scale).log_prob(z)
    rows, acceptance = independence_chain(log_weights)
    grid = torch.linspace(-9.0, 9.0, 1501)
    p, q = (dist.Normal(0.0, s).log_prob(grid) for s in (1.0, scale))
    flow = torch.minimum((p[:, None] + q).exp(), (p + q[:, None]).exp())
    exact = torch.trapezoid(torch.trapezoid(flow, grid), grid)
    of_chains = acceptance[50:].mean(0)  # independent of each other
    error = of_chains.std() / chains**0.5
    assert error < 0.003
    assert (of_chains.mean() - exact).abs() < 4 * error
    states = z.gather(0, rows)[50:]
    second = states.square().mean(0)
    assert (second.mean() - 1).abs() < 4 * second.std() / chains**0.5
    assert second.std() / chains**0.5 < 0.02, "the proposals have 2.25"


def test_equal_weights_accept_everything() -> None:
    rows, acceptance = independence_chain(torch.zeros(10, 3))
    assert torch.equal(rows, torch.arange(10)[:, None].expand(10, 3))
    assert torch.equal(acceptance, torch.ones(10, 3))


def test_weights_that_are_no_numbers_are_left_as_soon_as_can_be_and_never_entered() -> None:
    nan, inf = torch.nan, torch.inf
    log_weights = torch.tensor([[nan, -inf, 0.0], [nan, nan, nan], [0.0, 0.0, -inf]])
    rows, _ = independence_chain(log_weights)
    assert rows[1].tolist() == [0, 0, 0]
    assert rows[2].tolist() == [2, 2, 0]


# Into ArviZ.


@pytest.mark.parametrize("correct", ["mh", "psis"])
def test_corrected_draws_are_those_of_the_posterior(
    correct: str, oracle: LinearGaussian, x: Tensor
) -> None:
    drawn = to_inference_data(
        oracle.model, off(oracle), x, num_samples=4000, correct=correct, **ONLY_POSTERIOR
    )
    exact = oracle.posterior(x)
    spread = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    posterior = drawn["posterior"]
    z = torch.as_tensor(posterior["z"].values).flatten(0, 1)
    scores = (z.mean(0) - exact.loc) / spread
    effective = 300  # far below what the chains have; asserted for these
    assert scores.abs().max() < 4 / effective**0.5
    assert (z.var(0) / spread.square() - 1).abs().max() < 4 * (2 / effective) ** 0.5
    if correct == "mh":
        assert dict(posterior.sizes) == {"chain": 4, "draw": 1000, "data": 20, "z_dim_0": 2}
        assert az.rhat(drawn)["z"].max() < 1.03
        assert az.ess(drawn)["z"].min() > effective
        rate = drawn["sample_stats"]["acceptance_rate"]
        assert 0.3 < rate.mean() < 0.9
        assert drawn.attrs["acceptance_min"] == pytest.approx(rate.mean(("chain", "draw")).min())
    else:
        assert drawn.attrs["khat_above_0.7"] == 0.0
    uncorrected = to_inference_data(oracle.model, off(oracle), x, **ONLY_POSTERIOR)
    off_by = uncorrected["posterior"]["z"].values.mean((0, 1)) - exact.loc.numpy(force=True)
    assert (abs(off_by) / spread.numpy(force=True)).min() > 0.3, "the guide is off by half a spread"


def test_every_group_of_draws_is_chosen_alike(oracle: LinearGaussian, x: Tensor) -> None:
    drawn = to_inference_data(
        oracle.model, off(oracle), x, num_samples=40, correct="mh", num_chains=2, seed=0
    )
    z = torch.as_tensor(drawn["posterior"]["z"].values)  # (chain, draw, data, 2)
    expected = dist.Normal(z @ oracle.loading.T, oracle.noise).log_prob(x).sum(-1)
    found = torch.as_tensor(drawn["log_likelihood"]["x"].values)
    torch.testing.assert_close(found, expected)
    stats = drawn["sample_stats"]
    assert (stats["log_p"] - stats["log_q"] - stats["log_weight"]).max() < 1e-10
    assert drawn["prior"].sizes["draw"] * drawn["prior"].sizes["chain"] >= 40


def test_a_latent_of_all_data_has_one_weight() -> None:
    x = torch.randn(30) + 0.7
    drawn = to_inference_data(
        model_of_mean, guide_of_mean, x, num_samples=4000, correct="mh", **ONLY_POSTERIOR
    )
    assert drawn["sample_stats"]["acceptance_rate"].dims == ("chain", "draw")
    mean = drawn["posterior"]["mean"]
    error = float(az.mcse(drawn)["mean"])
    assert abs(float(mean.mean()) - float(x.sum() / 31)) < 4 * error
    assert error < 0.01
    assert abs(float(mean.std()) - 31**-0.5) < 4 * float(az.mcse(drawn, method="sd")["mean"])


def test_a_guide_far_away_is_told(oracle: LinearGaussian, x: Tensor) -> None:
    far = off(oracle, shift=20.0, widening=1.0)
    arguments = (oracle.model, far, x)
    with pytest.warns(UserWarning, match="Try:") as told:
        to_inference_data(*arguments, num_samples=8000, correct="mh", **ONLY_POSTERIOR)
    still, heavy = (str(warning.message) for warning in told)
    assert still.startswith("correct='mh': expected 1% of the proposals accepted, got fewer for")
    assert "Their chains stand still: do not use them." in still
    assert heavy.startswith("correct='mh': expected k-hat <= 0.7, got more for 100.0% of the data")
    with pytest.warns(UserWarning, match=r"correct='psis': expected k-hat <= 0.7, got more for"):
        to_inference_data(*arguments, num_samples=400, correct="psis", **ONLY_POSTERIOR)


def test_what_cannot_be_corrected_is_refused(oracle: LinearGaussian, x: Tensor) -> None:
    with pytest.raises(ProgramError, match=r"correct: expected one of \['mh', 'psis'\]"):
        to_inference_data(oracle.model, oracle.exact_guide, x, correct="gibbs")
    with pytest.raises(PyroLVMError, match="num_samples: expected a multiple of num_chains=4"):
        to_inference_data(oracle.model, oracle.exact_guide, x, num_samples=10, correct="mh")

    def implicit(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            sampler: Any = lambda shape: torch.randn(*shape, len(x), 2)  # noqa: E731
            pyro.sample("z", Implicit(sampler, event_dim=1))

    with pytest.raises(DensityError, match="guide: expected a density to correct its draws by"):
        to_inference_data(oracle.model, implicit, x, correct="mh", **ONLY_POSTERIOR)


def test_a_minibatch_beside_a_latent_of_all_data_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 30, subsample_size=5) as index:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])

    with pytest.raises(PlateError, match=r"plate 'data': expected all data.*got a minibatch"):
        to_inference_data(model, guide_of_mean, torch.randn(30), correct="mh", **ONLY_POSTERIOR)


# Pyro's MCMC.


def test_the_kernel_runs_in_pyros_mcmc(oracle: LinearGaussian, x: Tensor) -> None:
    kernel = IndependentMetropolisHastings(oracle.model, off(oracle), block_size=100)
    mcmc = MCMC(kernel, num_samples=1500, warmup_steps=50, disable_progbar=True)
    mcmc.run(x)
    z, exact = mcmc.get_samples()["z"], oracle.posterior(x)
    spread = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    assert z.shape == (1500, 20, 2)
    draws = az.convert_to_dataset({"z": z.unsqueeze(0).numpy(force=True)})
    effective = az.ess(draws)["z"].values.min()
    assert effective > 150
    assert ((z.mean(0) - exact.loc) / spread).abs().max() < 4.5 / effective**0.5
    rate = mcmc.diagnostics()["acceptance rate"]["chain 0"]
    assert rate.shape == (20,)
    moved = (z[1:] != z[:-1]).any(-1).double().mean(0)
    assert (rate - moved).abs().max() < 2 / 1500, "counted after the warm-up"
    assert set(kernel.logging()) == {"acc. rate", "lowest"}


def test_the_kernel_starts_at_the_guide_only(oracle: LinearGaussian, x: Tensor) -> None:
    kernel = IndependentMetropolisHastings(oracle.model, oracle.exact_guide)
    start = {"z": torch.zeros(1, 20, 2)}
    mcmc = MCMC(kernel, num_samples=5, initial_params=start, disable_progbar=True)
    with pytest.raises(PyroLVMError, match="initial_params: expected none: chains start at"):
        mcmc.run(x)


def test_the_kernel_tells_that_chains_stand_still(oracle: LinearGaussian, x: Tensor) -> None:
    far = off(oracle, shift=20.0, widening=1.0)
    kernel = IndependentMetropolisHastings(oracle.model, far)
    mcmc = MCMC(kernel, num_samples=1000, warmup_steps=50, disable_progbar=True)
    with pytest.warns(UserWarning, match="IndependentMetropolisHastings: expected 1% of the prop"):
        mcmc.run(x)
