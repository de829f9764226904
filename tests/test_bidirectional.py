"""Sequential Monte Carlo and bounds from both sides against evidences in closed form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import bimodal, bimodal_evidence
from explained import explained
from torch import Tensor

from pyro_lvm.diagnostics import (
    AIS,
    SMC,
    EvidenceSandwich,
    bidirectional,
    log_evidence,
    plot_evidence_sandwich,
)
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.diagnostics.smc import systematic
from pyro_lvm.diagnostics.verdict import Status
from pyro_lvm.errors import ProgramError, PyroLVMError
from pyro_lvm.hmc import Point
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

METHODS = {
    "ais": AIS(num_temperatures=8, num_leapfrog=2),
    "ais from the guide": AIS(num_temperatures=4, num_leapfrog=2, initial="guide"),
    "smc": SMC(num_temperatures=8, num_leapfrog=2, num_particles=4, threshold=0.9),
}
all_methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def oracle(float64: torch.dtype) -> LinearGaussian:
    """Data that say little of the latents, so that short chains do."""
    return LinearGaussian(0.5 * torch.randn(3, 2), torch.tensor([1.5, 1.2, 2.0]))


def simulated(oracle: LinearGaussian, count: int) -> tuple[Tensor, Tensor]:
    """Data, and the latents that made them."""
    z = torch.randn(count, 2)
    return z @ oracle.loading.T + torch.randn(count, 3) * oracle.noise, z


def wide(oracle: LinearGaussian) -> Callable[[Tensor], None]:
    def guide(x: Tensor) -> None:
        q = oracle.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(q.loc, 1.3 * q.stddev).to_event(1))

    return guide


# Sequential Monte Carlo.


def test_smc_is_exact_within_its_standard_error(oracle: LinearGaussian) -> None:
    x, _ = simulated(oracle, 12)
    estimate = log_evidence(oracle.model, None, x, method=METHODS["smc"], num_samples=100)
    assert estimate.method == "smc"
    assert estimate.num_samples == 100
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert (estimate.standard_error < 0.06).all()
    assert z.abs().max() < 4


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_weights_of_populations_are_unbiased(threshold: float) -> None:
    """Few temperatures and short moves: noisy weights, whose mean is p(x) all the same."""
    x = torch.tensor([1.5])
    options = SMC(4, 2, num_particles=3, threshold=threshold)
    chains = Chains(options, bimodal, None, (x,), {}, 10_000)
    ratio = (torch.cat(list(chains)) - bimodal_evidence(x)).exp()
    assert ratio.shape == (10_000, 1)
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error


def test_without_a_threshold_populations_average_chains(
    oracle: LinearGaussian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMC at threshold 0 is AIS whose chains are averaged in groups, draw by draw."""
    monkeypatch.setattr("pyro_lvm.diagnostics.smc.systematic", lambda w: torch.zeros_like(w).long())
    x, _ = simulated(oracle, 3)
    found = []
    for options in (SMC(5, 2, num_particles=4, threshold=0.0), AIS(5, 2)):
        pyro.set_rng_seed(1)
        chains = Chains(options, oracle.model, None, (x,), {}, 24 // options.population)
        found.append(torch.cat(list(chains)))
    averaged = found[1].unflatten(0, (6, 4)).logsumexp(1) - torch.tensor(4.0).log()
    torch.testing.assert_close(found[0], averaged)


def test_systematic_resampling_is_unbiased_and_even() -> None:
    weights = torch.tensor([[0.55, 0.05], [0.3, 0.05], [0.15, 0.0], [0.0, 0.9]])
    rows = torch.stack([systematic(weights.log()) for _ in range(5_000)])  # (., M, batch)
    counts = torch.nn.functional.one_hot(rows, 4).sum(1)  # (., batch, M)
    mean = counts.double().mean(0)
    torch.testing.assert_close(mean, 4 * weights.T, atol=4 * 0.5 / 5_000**0.5, rtol=0)
    assert ((counts - 4 * weights.T).abs() < 1).all()


def test_each_datum_resamples_by_its_own_weights() -> None:
    """Two populations of two, two data: one is even and stays, one has a particle that is all."""
    position = torch.arange(8.0).reshape(4, 2, 1)
    flat = torch.zeros(4, 2)
    point = Point(position, flat, flat, position, position)
    log_weights = torch.tensor([[1.0, 0.0], [1.0, -99.0], [1.0, -99.0], [1.0, 0.0]])
    found = SMC(num_particles=2, threshold=0.9).resampled(point, log_weights)
    assert found.point.position[..., 0].T.tolist() == [[0, 2, 4, 6], [1, 1, 7, 7]]
    assert found.log_weights.T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    half = torch.tensor(0.5).log()
    torch.testing.assert_close(found.log_mean, torch.stack([torch.zeros(2), half.expand(2)], 1))


# Both sides.


@all_methods
def test_both_sides_hold_the_truth(oracle: LinearGaussian, method: AIS) -> None:
    x, z = simulated(oracle, 100)
    found = bidirectional(
        oracle.model, wide(oracle), x, latents={"z": z}, method=method, num_samples=4
    )
    exact = oracle.log_evidence(x)
    for side, sign in ((found.lower, 1), (found.upper, -1)):
        short = sign * (exact - side)  # in expectation 0 or above
        error = short.std() / len(x) ** 0.5
        assert short.mean() > -4 * error
        assert error < 0.05
        assert short.mean() < 0.2
    assert found.gap.mean() > -3 * found.gap_error


def test_weights_backwards_have_the_mean_of_one_over_the_evidence(oracle: LinearGaussian) -> None:
    """Over exact draws of one posterior; few temperatures, so that a bias would show."""
    x, _ = simulated(oracle, 1)
    x = x.expand(1000, 3)
    z = oracle.posterior(x).sample()
    for options in (AIS(2, 1), SMC(2, 1, num_particles=3, threshold=1.0)):
        chains = Chains(options, oracle.model, None, (x,), {}, 1)
        log_weights = torch.cat(list(chains.backwards({"z": z})))[0]
        ratio = (log_weights + oracle.log_evidence(x)).exp()
        error = ratio.std() / len(ratio) ** 0.5
        assert error < 0.05
        assert abs(ratio.mean() - 1) < 4 * error
        assert ratio.std() > 0.1, "noisy enough for a bias to show"


def test_the_gap_closes_with_temperatures(oracle: LinearGaussian) -> None:
    x, z = simulated(oracle, 100)
    gaps = [
        bidirectional(
            oracle.model, None, x, latents={"z": z}, method=AIS(t, 2), num_samples=2
        ).gap.mean()
        for t in (1, 4, 16)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > -0.02


def levels(x: Tensor) -> None:
    """A positive latent, two plates, and a switch that is summed out."""
    with pyro.plate("data", len(x), dim=-2):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("inner", x.shape[1], dim=-1):
            on = pyro.sample("on", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Poisson(rate * (1 + 2 * on)), obs=x)


def test_data_are_simulated_where_none_are_given() -> None:
    """Constrained latents in a plate with another inside; the exact evidence by quadrature."""
    shape = torch.zeros(40, 2)
    pyro.set_rng_seed(3)
    found = bidirectional(levels, None, shape, method=AIS(10, 3), num_samples=4)
    pyro.set_rng_seed(3)
    sites = pyro.poutine.trace(pyro.poutine.uncondition(levels)).get_trace(shape).nodes
    x = sites["x"]["value"]
    rates = torch.linspace(1e-4, 25, 5001)[:, None, None]
    off = (
        0.6 * dist.Poisson(rates).log_prob(x).exp()
        + 0.4 * dist.Poisson(3 * rates).log_prob(x).exp()
    )
    joint = dist.Gamma(2.0, 1.0).log_prob(rates[:, 0]) + off.log().sum(-1)
    exact = torch.trapezoid(joint.exp(), rates[:, 0, 0], dim=0).log()
    for short in (exact - found.lower, found.upper - exact):
        assert short.shape == (40,)
        assert -3 * short.std() / 40**0.5 < short.mean() < 0.4


def test_a_random_minibatch_is_one(oracle: LinearGaussian) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=8) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = 100.0 * index[:, None] + z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x)

    found = bidirectional(model, None, torch.zeros(8, 3), method=AIS(8, 2), num_samples=4)
    assert found.gap.shape == (8,)
    assert found.gap.abs().max() < 10, "rows of another minibatch are hundreds of nats off"


def test_chunks_of_whole_populations(oracle: LinearGaussian) -> None:
    x, _ = simulated(oracle, 3)
    chains = Chains(SMC(3, 1, num_particles=4), oracle.model, None, (x,), {}, 5, chunk_size=9)
    assert [len(part) for part in chains] == [2, 2, 1]


# What it says.


def test_summary_verdict_and_figure(oracle: LinearGaussian, tmp_path: Path) -> None:
    oracle = LinearGaussian(2 * oracle.loading, oracle.noise)  # data that say more
    x, z = simulated(oracle, 150)
    rough = bidirectional(oracle.model, None, x, latents={"z": z}, method=AIS(2, 1), num_samples=2)
    told = rough.summary()
    assert told["sandwich"] == rough.gap.mean().item()
    assert rough.verdict().status is Status.WARN
    assert "num_temperatures" in rough.verdict().advice
    wrong = bidirectional(
        oracle.model, None, x, latents={"z": z + 5}, method=AIS(2, 1), num_samples=2
    )
    assert wrong.verdict().status is Status.FAIL
    assert "crossed" in wrong.verdict().finding
    tight = EvidenceSandwich(rough.lower, rough.lower_error, rough.lower, rough.lower_error, 2)
    assert tight.verdict().status is Status.PASS
    plot_evidence_sandwich(rough).savefig(tmp_path / "sandwich.png")
    assert (tmp_path / "sandwich.png").stat().st_size > 5000


# Refusals.


def test_arguments(oracle: LinearGaussian) -> None:
    with explained(PyroLVMError, "num_particles", "an integer >= 1", "0", "num_particles"):
        SMC(num_particles=0)
    with explained(PyroLVMError, "threshold", "0 to 1", "1.5", "threshold=0.5"):
        SMC(threshold=1.5)
    x, _ = simulated(oracle, 3)
    with explained(ProgramError, "latents", "values of ['z']", "none of ['z']", "made the data"):
        bidirectional(oracle.model, None, x, latents={}, method=AIS(2))

    def weighted(x: Tensor) -> None:
        oracle.model(x)
        with pyro.plate("data", len(x)):
            pyro.factor("penalty", torch.zeros(len(x)))

    with explained(ProgramError, "site 'penalty'", "can be drawn", "a factor", "latents="):
        bidirectional(weighted, None, x, method=AIS(2))

    def masked(x: Tensor, seen: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    seen = torch.tensor([True, False, True])
    with explained(ProgramError, "site 'x_observed'", "can be drawn", "obs_mask", "latents="):
        bidirectional(masked, None, x[:, 0], seen, method=AIS(2))
