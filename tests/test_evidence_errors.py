"""Standard errors of the evidence: how often the truth is within two of them, measured.

Each of a few data is estimated many times at once, as rows of one batch, which are independent.
For an honest error 95.4 % of the estimates are within two; the shares below are over 600 of them,
with a standard error of 0.9 % for independent ones.
"""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.diagnostics import AIS, SMC, log_evidence
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

METHODS = {
    "iwae": ("iwae", 300),
    "ais": (AIS(num_temperatures=10, num_leapfrog=2), 100),
    "smc": (SMC(num_temperatures=10, num_leapfrog=2, num_particles=4, threshold=0.9), 40),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_truth_is_within_two_standard_errors(name: str) -> None:
    oracle = LinearGaussian(0.5 * torch.randn(3, 2), torch.tensor([1.5, 1.2, 2.0]))
    x = torch.randn(6, 2) @ oracle.loading.T + torch.randn(6, 3) * oracle.noise
    x = x.repeat(100, 1)

    def guide(x: Tensor) -> None:
        q = oracle.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(q.loc + 0.5 * q.stddev, 1.3 * q.stddev).to_event(1))

    method, num_samples = METHODS[name]
    found = log_evidence(oracle.model, guide, x, method=method, num_samples=num_samples)
    z = (found.value - oracle.log_evidence(x)) / found.standard_error
    assert 0.92 <= (z.abs() <= 2).double().mean() <= 0.985
    assert 0.8 < z.square().mean().sqrt() < 1.2


def test_a_point_mass_is_no_proposal() -> None:
    """p(x, z) at one z, which may be above p(x); of a discrete z it is a part of p(x)."""

    def model(x: Tensor, is_discrete: bool) -> None:
        with pyro.plate("data", len(x)):
            prior = dist.Bernoulli(0.5) if is_discrete else dist.Normal(0.0, 0.1)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def point(x: Tensor, is_discrete: bool) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(torch.zeros(len(x))))

    x = torch.zeros(2)
    with explained(PyroLVMError, "site 'z'", "draws it", "a point mass", "AutoNormal"):
        log_evidence(model, point, x, False, num_samples=30)
    found = log_evidence(model, point, x, True, num_samples=30)
    torch.testing.assert_close(found.value, dist.Normal(0.0, 1.0).log_prob(x) - log(2))
