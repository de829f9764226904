"""The order of all bounds under a fixed, imperfect guide, and the exact mean of each.

One weight set serves every objective, so that most of the order holds draw by draw and is
asserted exactly; what holds only in the mean is held to four standard errors. Exact means come
from quadrature over the one latent, ``expected_bound`` for K draws; a heavy guide keeps every
moment of the weights finite.
"""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.objective import Objective
from pyro_lvm.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    TVO,
    AlphaDivergence,
    Renyi,
    ReweightedWakeSleep,
    WakeSleep,
)
from pyro_lvm.oracles import LinearGaussian, expected_bound, normal_grid

pytestmark = pytest.mark.usefixtures("float64")

K = 6
SETS = 20_000


@dataclass
class Case:
    """A model and a guide: sampled log-weights ``(K, sets)``, those of a grid, log p(x)."""

    log_weights: Tensor
    grid: Tensor
    masses: Tensor
    log_evidence: Tensor

    def mean(self, objective: Objective) -> tuple[Tensor, Tensor]:
        """Monte Carlo mean of the bound, nats, and its standard error."""
        bounds = objective.bound_per_datum(self.log_weights)
        return bounds.mean(), bounds.std() / SETS**0.5

    def exact(self, alpha: float, count: int = K) -> Tensor:
        return expected_bound(self.grid, self.masses, count, alpha)


def gaussian() -> Case:
    """One factor of three features; the guide is shifted and 1.3 times as wide."""
    oracle = LinearGaussian(torch.tensor([[1.0], [0.5], [-0.8]]), torch.tensor([0.7, 0.9, 0.6]))
    x = torch.tensor([[0.9, -0.4, -1.1]])
    posterior = oracle.posterior(x)
    loc, scale = posterior.loc + 0.2, 1.3 * posterior.covariance_matrix.sqrt()[..., 0]

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    log_weights = ELBO(K).log_weights(oracle.model, guide, x.expand(SETS, 3))
    points, masses = normal_grid(400)
    z = loc + scale * points[:, None]
    log_p = dist.Normal(z @ oracle.loading.T, oracle.noise).log_prob(x).sum(-1)
    ratio = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(loc, scale).log_prob(z)
    return Case(log_weights, log_p + ratio.squeeze(-1), masses, oracle.log_evidence(x)[0])


def discrete() -> Case:
    """One of three components, drawn by a guide that prefers another."""
    prior, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.5, 0.2, 0.3])
    loc, x = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor(0.8)

    def model() -> None:
        with pyro.plate("data", SETS):
            z = pyro.sample("z", dist.Categorical(prior))
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x.expand(SETS))

    def guide() -> None:
        with pyro.plate("data", SETS):
            pyro.sample("z", dist.Categorical(q))

    joint = prior.log() + dist.Normal(loc, 1.0).log_prob(x)
    log_weights = ELBO(K).log_weights(model, guide)
    return Case(log_weights, joint - q.log(), q, joint.logsumexp(0))


@pytest.fixture(params=[gaussian, discrete], ids=lambda make: make.__name__)
def case(request) -> Case:
    return request.param()


LADDER = [
    ELBO(K),
    TVO(K, num_partitions=3, first_beta=0.1),
    TVO(K, num_partitions=12, first_beta=0.01),
    IWAE(K),
    CUBO(K, order=1.5),
    CUBO(K, order=2.0),
]


def test_bounds_of_the_same_draws_are_ordered_draw_by_draw(case) -> None:
    def rising(*objectives: Objective) -> None:
        values = torch.stack([o.bound_per_datum(case.log_weights) for o in objectives])
        assert values.diff(dim=0).min() > -1e-12

    rising(*LADDER)
    rising(ELBO(K), CIWAE(K, elbo_weight=0.7), CIWAE(K, elbo_weight=0.2), IWAE(K))
    rising(ELBO(K), MIWAE(K, num_groups=3), IWAE(K))
    rising(ELBO(K), MIWAE(K, num_groups=2), IWAE(K))
    rising(ELBO(K), Renyi(K, alpha=0.5), IWAE(K), Renyi(K, alpha=-0.5), CUBO(K, order=1.5))
    upper = LADDER[2].upper_sum(case.log_weights)
    assert (upper - IWAE(K).bound_per_datum(case.log_weights)).min() > -1e-12


@pytest.mark.parametrize("make", [PIWAE, ReweightedWakeSleep, AlphaDivergence])
def test_objectives_that_report_the_importance_weighted_bound(make, case) -> None:
    bounds = [o.bound_per_datum(case.log_weights) for o in (make(K), IWAE(K))]
    torch.testing.assert_close(*bounds)


def test_wake_sleep_and_one_partition_report_the_elbo(case) -> None:
    elbo = ELBO(K).bound_per_datum(case.log_weights)
    for objective in (WakeSleep(K), TVO(K, num_partitions=1)):
        torch.testing.assert_close(objective.bound_per_datum(case.log_weights), elbo)


def thermodynamic(case: Case, betas: list[float], count: int | None) -> Tensor:
    r"""E of :math:`E_{\pi_\beta}[\log w]` at each beta: :math:`d/d\beta \, E \log \tfrac1K \sum_k
    w_k^\beta`, of ``count`` draws or of the distribution itself."""

    def potential(beta: Tensor) -> Tensor:
        if count is None:
            return (case.masses.log() + beta * case.grid).logsumexp(0)
        return expected_bound(beta * case.grid, case.masses, count)

    leaves = [torch.tensor(beta, requires_grad=True) for beta in betas]
    return torch.stack([torch.autograd.grad(potential(b), b)[0] for b in leaves])


def riemann(case: Case, objective: TVO, count: int | None) -> tuple[Tensor, Tensor]:
    """Left and right sums, from the betas that the class documents."""
    number, first = objective.num_partitions, objective.first_beta
    betas = [0.0, *(first ** (1 - j / (number - 1)) for j in range(number))]
    means, widths = thermodynamic(case, betas, count), torch.tensor(betas).diff()
    return (widths * means[:-1]).sum(), (widths * means[1:]).sum()


def test_means_are_the_exact_ones(case) -> None:
    """Quadrature of each K-draw mean, independent of how the bound is computed."""
    tvo = TVO(K, num_partitions=4, first_beta=0.05)
    exact = {
        ELBO(K): case.exact(1.0),
        CIWAE(K, elbo_weight=0.7): 0.7 * case.exact(1.0) + 0.3 * case.exact(0.0),
        MIWAE(K, num_groups=2): case.exact(0.0, 3),
        MIWAE(K, num_groups=K): case.exact(1.0),
        IWAE(K): case.exact(0.0),
        tvo: riemann(case, tvo, K)[0],
        CUBO(K, order=2.0): case.exact(-1.0),
        CUBO(K, order=1.5): case.exact(-0.5),
    }
    gap = case.log_evidence - case.exact(1.0)
    for objective, value in exact.items():
        mean, error = case.mean(objective)
        assert abs(mean - value) < 4 * error, (objective, mean, value, error)
        assert error < 0.05 * gap
        assert value < case.log_evidence or not objective.is_bound
    upper = tvo.upper_sum(case.log_weights)
    assert abs(upper.mean() - riemann(case, tvo, K)[1]) < 4 * upper.std() / SETS**0.5


def test_thermodynamic_sums_close_in_on_the_evidence(case) -> None:
    """Exact sums: below and above log p(x), nearer with every partition; so are K draws' means."""
    elbo, evidence = case.exact(1.0), case.log_evidence
    sums = [riemann(case, TVO(K, num_partitions=n, first_beta=0.02), None) for n in (2, 5, 20, 80)]
    lower, upper = torch.tensor(sums).T
    assert elbo < lower[0]
    assert lower.diff().min() > 0
    assert lower[-1] < evidence < upper[-1]
    assert upper.diff().max() < 0
    assert upper[-1] - lower[-1] < 0.1 * (evidence - elbo)
    for count in (2, 50):
        left, right = riemann(case, TVO(count, num_partitions=5, first_beta=0.02), count)
        assert elbo < left < case.exact(0.0, count) < right


def test_upper_sum_of_few_draws_lies_below_the_evidence() -> None:
    """It is an estimate: its mean passes log p(x) only as K grows."""
    case, objective = gaussian(), TVO(2, num_partitions=40, first_beta=0.01)
    few, many = (riemann(case, objective, count)[1] for count in (2, 400))
    assert few < case.log_evidence < many


@pytest.mark.parametrize("order", [1.5, 2.0, 3.0])
def test_chi_square_bound_is_above_and_its_estimate_rises_to_it(order, case) -> None:
    limit = (case.masses.log() + order * case.grid).logsumexp(0) / order
    assert limit > case.log_evidence
    means = torch.stack([case.exact(1.0 - order, count) for count in (1, 2, 8, 64, 512, 4096)])
    assert means.diff().min() > 0
    assert means[0] < case.log_evidence < means[-1] < limit
    assert limit - means[-1] < 0.1 * (limit - means[0])
    for count in (2, 3, 6):  # the estimate's own means, over independent sets
        objective = CUBO(count, order=order)
        bounds = objective.bound_per_datum(case.log_weights.unflatten(0, (count, -1)))
        bounds = bounds.flatten()
        error = bounds.std() / SETS**0.5  # no smaller than that of dependent sets
        assert abs(bounds.mean() - case.exact(1.0 - order, count)) < 4 * error


def test_chi_square_bound_in_closed_form() -> None:
    r"""Gaussians: :math:`E_q w^2 = p(x)^2 \int p(z|x)^2 / q(z)`, with :math:`2 / v - 1 / s > 0`."""
    case = gaussian()
    v, s, shift = 1.0, 1.3**2, 0.2  # in units where the posterior's variance is 1
    oracle = LinearGaussian(torch.tensor([[1.0], [0.5], [-0.8]]), torch.tensor([0.7, 0.9, 0.6]))
    shift = shift / oracle.posterior(torch.zeros(1, 3)).covariance_matrix.sqrt().item()
    log_ratio = 0.5 * torch.tensor(s / v**2 / (2 / v - 1 / s)).log() + shift**2 / (2 * s - v)
    exact = case.log_evidence + 0.5 * log_ratio
    limit = (case.masses.log() + 2.0 * case.grid).logsumexp(0) / 2.0
    torch.testing.assert_close(limit, exact, atol=1e-9, rtol=0)
