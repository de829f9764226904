"""Proposals with mixing variables: their chains have the exact posterior, whatever J."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from mixing_programs import MIXING, mixed_prior
from pyro.infer import MCMC
from torch import Tensor

from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.mcmc import IndependentMetropolisHastings
from pyro_lvm.objectives import DSIVI, IWHVI, SIVI

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.*k-hat <= 0.7"),  # of 1000 data some are above by chance,
    pytest.mark.filterwarnings("ignore:.*1% of the proposals"),  # and in 2 steps many stand still
]

NUM_DATA, BINS = 1000, 20
MOST = BINS - 1 + 4 * (2 * (BINS - 1)) ** 0.5
"""Of chi-square: four standard deviations above its mean."""
ONLY_POSTERIOR = {"posterior_predictive": False, "prior": False, "log_likelihood": False}


def beside(x: Tensor) -> None:
    """A skewed mixture beside the posterior, most of it on one side."""
    with pyro.plate("data", len(x)):
        side = pyro.sample("side", dist.Bernoulli(torch.tensor(0.3)), infer=MIXING)
        psi = pyro.sample("psi", dist.Normal(2 * side - 0.4, 0.4), infer=MIXING)
        pyro.sample("z", dist.Normal(psi, 0.9))


def reverse(x: Tensor, z: Tensor) -> None:
    """Not that of ``beside``."""
    with pyro.plate("data", len(x)):
        side = pyro.sample("side", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("psi", dist.Normal(side + z / 2, 1.0))


def chi_square(z: Tensor, x: Tensor) -> float:
    """Of independent draws, one a datum, in bins that the posterior gives equal shares."""
    place = dist.Normal(x / 2, 0.5**0.5).cdf(z) * BINS
    counts = torch.bincount(place.long().flatten(), minlength=BINS)
    expected = z.numel() / BINS
    return float(((counts - expected).square() / expected).sum())


@pytest.fixture
def x(float64: torch.dtype) -> Tensor:
    return torch.full((NUM_DATA,), 0.6)


OBJECTIVES: dict[str, Callable[[], Any]] = {
    "SIVI, J = 0": lambda: SIVI(num_mixing=0),
    "SIVI, J = 1": lambda: SIVI(num_mixing=1, share_mixing=True),
    "SIVI, J = 9": lambda: SIVI(num_mixing=9, chunk_mixing=4),
    "IWHVI, J = 2": lambda: IWHVI(num_mixing=2, reverse=reverse),
    "DSIVI, J = 1": lambda: DSIVI(num_mixing=1, num_prior_mixing=2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("correct", ["mh", "psis"])
def test_corrected_draws_are_those_of_the_posterior(name: str, correct: str, x: Tensor) -> None:
    """One draw of each chain, or of each datum's weights: they are independent."""
    prior = mixed_prior if "DSIVI" in name else model
    drawn = to_inference_data(
        prior,
        beside,
        x,
        num_samples=800,
        correct=correct,
        objective=OBJECTIVES[name](),
        **ONLY_POSTERIOR,
    )
    z = torch.as_tensor(drawn["posterior"]["z"].values)  # (chain, draw, data)
    assert chi_square(z[:, -1], x) < MOST
    assert drawn.attrs["log_weight_is_exact"] == 0, "its mean is"


def test_the_guides_own_draws_are_not(x: Tensor) -> None:
    drawn = to_inference_data(model, beside, x, num_samples=4, **ONLY_POSTERIOR)
    z = torch.as_tensor(drawn["posterior"]["z"].values)
    assert chi_square(z[0], x) > 10 * MOST


def test_more_mixing_draws_are_accepted_more_often(x: Tensor) -> None:
    rates = []
    for count in (0, 3, 30):
        container = to_inference_data(
            model,
            beside,
            x[:100],
            num_samples=400,
            correct="mh",
            objective=SIVI(num_mixing=count),
            **ONLY_POSTERIOR,
        )
        rates.append(container.attrs["acceptance_mean"])
    assert rates[0] + 0.02 < rates[1] < rates[2] - 0.005, rates


def test_the_kernel_is_exact_too(x: Tensor) -> None:
    kernel = IndependentMetropolisHastings(model, beside, objective=SIVI(num_mixing=1))
    assert kernel.mixing.num_mixing == 1
    ends = []
    for _ in range(4):
        mcmc = MCMC(kernel, num_samples=2, warmup_steps=150, disable_progbar=True)
        mcmc.run(x)
        ends.append(mcmc.get_samples()["z"][-1])
    assert chi_square(torch.stack(ends), x) < MOST
    assert IndependentMetropolisHastings(model, beside).mixing.num_mixing == 50
