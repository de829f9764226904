"""The sandwich around the ELBO of a semi-implicit guide, and diagnostics by its weights."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import LOG_P, MAX_Z, MIXING, X, gaussian, mean_and_error, mixed_prior, wide
from torch import Tensor

from pyro_lvm.diagnostics import log_evidence, plot_sandwich, sample_posterior, to_inference_data
from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import DSIVI, IWHVI

pytestmark = pytest.mark.usefixtures("float64")


def test_sandwich_holds_the_elbo_of_the_guide() -> None:
    """The guide is the exact posterior: its evidence lower bound is log p(x)."""
    x, widths = X.expand(500), []
    for count in (1, 10, 100):
        lower, upper = DSIVI.sandwich(model, gaussian, x, num_mixing=count, num_particles=20)
        assert lower.shape == upper.shape == (500,)
        for side, sign in ((lower, -1), (upper, 1)):
            mean, error = mean_and_error(sign * (side - LOG_P))
            assert mean > -MAX_Z * error
        widths.append((upper - lower).mean().item())
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.05


def test_sandwich_of_a_mixed_prior_is_refused() -> None:
    with explained(ProgramError, "DSIVI.sandwich", "explicit prior", "mixing variables", "grows"):
        DSIVI.sandwich(mixed_prior, gaussian, X)


def test_picture_of_the_sandwich() -> None:
    counts = {"num_mixing": (1, 100), "num_particles": 20, "chunk_mixing": 40}
    figure = plot_sandwich(model, gaussian, X.expand(30), **counts)
    above, below = (container.lines[0].get_ydata() for container in figure.axes[0].containers)
    assert below[0] < below[1] < above[1] < above[0]


# Diagnostics


@pytest.mark.parametrize("objective", [None, DSIVI(num_mixing=3, num_prior_mixing=5)])
def test_evidence_of_mixed_programs(objective) -> None:
    x = torch.tensor([-1.0, 0.5, 1.5])
    exact = dist.Normal(torch.zeros(3), 2**0.5).log_prob(x)
    found = log_evidence(mixed_prior, wide, x, num_samples=2000, objective=objective)
    assert found.is_bound
    assert (found.standard_error < 0.1).all()
    assert ((found.value - exact).abs() < MAX_Z * found.standard_error).all()
    assert found.khat.isfinite().all()


def test_khat_tells_a_guide_that_is_too_narrow() -> None:
    """Weights of a Normal guide in a Normal posterior have k = 1 - var_q / var_p."""

    def narrow(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(x / 2, 0.1), infer=MIXING)
            pyro.sample("z", dist.Normal(psi, 0.25))

    objective = DSIVI(num_mixing=50, num_prior_mixing=50)

    def khat(guide) -> Tensor:
        x = X.expand(20)
        return log_evidence(mixed_prior, guide, x, num_samples=1000, objective=objective).khat

    assert abs(khat(narrow).mean() - (1 - 0.0725 / 0.5)) < 0.25  # less by the fit's prior at 0.5
    assert (khat(wide) < 0.3).all()  # bounded weights


def test_evidence_by_a_reverse_program() -> None:
    def reverse(x: Tensor, z: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("psi", dist.Normal((x / 2 + z) / 2, 0.125**0.5))

    objective = IWHVI(num_mixing=0, reverse=reverse)
    found = log_evidence(model, gaussian, X, num_samples=30, objective=objective)
    torch.testing.assert_close(found.value, LOG_P)


def test_draws_of_mixed_programs() -> None:
    draws = sample_posterior(mixed_prior, gaussian, X.expand(4), num_samples=5000)
    assert draws.keys() == {"z"}
    assert draws["z"].shape == (5000, 4)
    mean, error = mean_and_error(draws["z"])
    assert abs(mean - 0.75) < MAX_Z * error


def test_mixed_programs_in_arviz() -> None:
    container = to_inference_data(model, gaussian, X.expand(4), num_samples=50)
    assert dict(container["posterior"].sizes) == {"chain": 1, "draw": 50, "data": 4}
    assert list(container["posterior"].data_vars) == ["z"]
    assert container["sample_stats"]["log_weight"].shape == (1, 50, 4)
    assert container.attrs["log_weight_is_exact"] == 0
