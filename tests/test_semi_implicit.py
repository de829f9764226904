"""SIVI and DSIVI against exact densities: Gaussian mixing, finite mixtures, quadrature."""

import itertools
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import (
    LOG_P,
    MAX_Z,
    MIXING,
    X,
    draws,
    exact_log_q,
    gaussian,
    mean_and_error,
    mixed_prior,
    two_modes,
    wide,
)
from standard_errors import assert_mean
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import DSIVI

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("guide", [gaussian, two_modes], ids=lambda g: g.__name__)
@pytest.mark.parametrize("share", [False, True])
def test_two_sides_bracket_the_density_and_close_in(guide, share: bool) -> None:
    x = X.expand(2000)
    gaps = []
    for count in (1, 10, 100, 1000):
        found = draws(model, guide, x[: 40_000 // (count + 10)], 2, count, 0, share)
        exact = exact_log_q(guide, found.values["z"], X)
        below, error = mean_and_error(exact - found.log_guide.lower)
        above, error_above = mean_and_error(found.log_guide.upper - exact)
        assert below > -MAX_Z * error
        assert above > -MAX_Z * error_above
        gaps.append((below + above).item())
    assert all(after < before for before, after in itertools.pairwise(gaps))
    assert gaps[0] > 0.3
    assert gaps[-1] < 0.01


@pytest.mark.parametrize("guide", [gaussian, two_modes], ids=lambda g: g.__name__)
def test_no_fresh_draw_leaves_the_conditional(guide) -> None:
    found = draws(model, guide, X.expand(5), 3, 0, 0)
    assert found.log_q.equal(found.log_guide.own)
    assert found.log_q.mean() > exact_log_q(guide, found.values["z"], X).mean()


@pytest.mark.parametrize("share", [False, True])
def test_rows_are_what_a_hand_would_write(share: bool) -> None:
    """K = 3, J = 4: each particle's own draw, and four others."""
    found = draws(model, gaussian, X.expand(5), 3, 4, 0, share)
    z, psi = found.values["z"], found.guide["psi"].value
    if share:
        assert psi.shape == (3 + 4, 1, 5)
        own, others = psi[:3, 0], psi[3:].expand(4, 3, 5)
    else:
        assert psi.shape == (1 + 4, 3, 5)
        own, others = psi[0], psi[1:]
    rows = torch.cat([own[None], others])
    by_hand = dist.Normal(rows, 0.5).log_prob(z).logsumexp(0) - log(5)
    torch.testing.assert_close(found.log_q, by_hand)
    assert ((z - own).abs() < 3).all()  # drawn at scale 0.5 around its own row
    torch.testing.assert_close(found.log_guide.own, dist.Normal(own, 0.5).log_prob(z))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("num_particles", "count"), [(1, 0), (1, 3), (4, 2)])
@pytest.mark.parametrize("prior", [model, mixed_prior], ids=["explicit", "mixed"])
def test_every_weight_has_mean_p_of_x(prior, num_particles: int, count: int, share: bool) -> None:
    """Whatever is shared: so that any bound of the log-weights is below log p(x)."""
    objective = DSIVI(
        num_particles,
        num_mixing=count,
        num_prior_mixing=3,
        share_mixing=share,
        share_prior_mixing=False,
    )
    weights = (objective.log_weights(prior, wide, X.expand(20_000)) - LOG_P).exp()
    each = weights.mean(0)  # particles share draws, data do not
    mean, error = mean_and_error(each)
    assert error < 0.05
    assert abs(mean - 1) < MAX_Z * error


def test_prior_mixing_after_a_latent() -> None:
    """p(second | first) = Normal(-first / 2, 1), as a mixture given the first latent."""

    def mixed_later(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(torch.zeros(()), 1.0))
            zeta = pyro.sample("zeta", dist.Normal(-first / 2, 0.8), infer=MIXING)
            second = pyro.sample("second", dist.Normal(zeta, 0.6))
            pyro.sample("x", dist.Normal(second, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("first", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("second", dist.Normal(x / 2, 1.0))

    objective = DSIVI(3, num_prior_mixing=4, share_prior_mixing=False)
    exact = dist.Normal(torch.zeros_like(X), 2.25**0.5).log_prob(X)
    weights = (objective.log_weights(mixed_later, guide, X.expand(20_000)) - exact).exp()
    mean, error = mean_and_error(weights.mean(0))
    assert error < 0.02
    assert abs(mean - 1) < MAX_Z * error
    with explained(ProgramError, "'zeta'", "one law", "parameters of shape (3, 1)", "=False"):
        DSIVI(3).loss(mixed_later, guide, X)


def test_prior_draws_shared_by_data_have_the_same_mean() -> None:
    objective = DSIVI(2, num_mixing=2, num_prior_mixing=50)
    weights = [
        (objective.log_weights(mixed_prior, wide, X.expand(20)) - LOG_P).exp().mean()
        for _ in range(2000)
    ]
    mean, error = mean_and_error(torch.stack(weights))
    assert error < 0.01
    assert abs(mean - 1) < MAX_Z * error


@pytest.mark.parametrize("share", [False, True])
def test_bound_rises_in_every_number_of_draws(share: bool) -> None:
    def mean(**counts: int) -> tuple[float, float]:
        objective = DSIVI(share_prior_mixing=False, share_mixing=share, **counts)
        value, error = mean_and_error(objective.bound(mixed_prior, gaussian, X.expand(20_000)))
        assert value < LOG_P + MAX_Z * error
        return value.item(), error.item()

    for rising in ("num_particles", "num_mixing", "num_prior_mixing"):
        fixed = {"num_particles": 1, "num_mixing": 3, "num_prior_mixing": 3}
        values = [mean(**{**fixed, rising: count}) for count in (1, 4, 16)]
        for (before, error), (after, other) in itertools.pairwise(values):
            assert after > before - MAX_Z * (error**2 + other**2) ** 0.5


def test_bound_of_a_mixed_prior_by_enumeration() -> None:
    """Two prior draws of two values: the bound's mean is a sum over four cases."""

    def coin_prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(torch.tensor(0.3)), infer=MIXING)
            z = pyro.sample("z", dist.Normal(2 * side - 1, 0.7))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((), 0.4), 1e-12))

    sides = dist.Normal(torch.tensor([-1.0, 1.0]), 0.7).log_prob(torch.tensor(0.4)).exp()
    chance = torch.tensor([0.7, 0.3])
    pairs = (sides[:, None] + sides) / 2
    exact = (chance[:, None] * chance * pairs.log()).sum()
    objective = DSIVI(num_prior_mixing=2, share_prior_mixing=False)
    particles = objective.particles(coin_prior, point, X.expand(100_000))
    mean, error = mean_and_error(particles.log_prior.value)
    assert error < 0.01
    assert abs(mean - exact) < MAX_Z * error


# Gradients


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """Points and log-weights of the standard Normal."""
    import numpy as np

    points, weights = np.polynomial.hermite_e.hermegauss(count)
    weights = torch.as_tensor(weights)
    return torch.as_tensor(points), (weights / weights.sum()).log()


def test_gradient_of_the_bound_by_quadrature() -> None:
    """K = 1, J = 1: an integral over both mixing variables, the latent, and two of the prior."""
    leaves = torch.tensor([0.2, -0.6, -0.4, 0.3, -0.2], requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(leaves[0], leaves[1].exp()), infer=MIXING)
            pyro.sample("z", dist.Normal(psi, leaves[2].exp()))

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            zeta = pyro.sample("zeta", dist.Normal(torch.zeros(()), 1.0), infer=MIXING)
            z = pyro.sample("z", dist.Normal(leaves[3] * zeta, leaves[4].exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    grid, weight = hermite(10)
    own, other, noise, first, second = torch.meshgrid(*[grid] * 5, indexing="ij")
    psi, psi_other = (leaves[0] + leaves[1].exp() * e for e in (own, other))
    z = psi + leaves[2].exp() * noise

    def mixture(centres: list[Tensor], scale: Tensor) -> Tensor:
        rows = torch.stack([dist.Normal(centre, scale).log_prob(z) for centre in centres])
        return rows.logsumexp(0) - log(2)

    value = dist.Normal(z, 1.0).log_prob(X)
    value = value + mixture([leaves[3] * first, leaves[3] * second], leaves[4].exp())
    value = value - mixture([psi, psi_other], leaves[2].exp())
    total = sum(weight.reshape(-1, *[1] * (4 - dim)) for dim in range(5)).exp()
    (exact,) = torch.autograd.grad((total * value).sum(), leaves)

    objective = DSIVI(num_mixing=1, num_prior_mixing=2, share_prior_mixing=False)
    found = []
    for _ in range(100):
        loss = objective.differentiable_loss(prior, guide, X.expand(2000)) / 2000
        found.append(torch.autograd.grad(-loss, leaves)[0])
    assert_mean(torch.stack(found), exact, MAX_Z, max_error=0.02)
