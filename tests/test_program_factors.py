"""Scales, masks and factors of a program, in the weight and in the gradient."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import X, drawn, guide, model, weights_by_hand
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_lvm.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("factor", [0.3, torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64)])
def test_scale_on_one_site_stays_in_the_weight(factor: float | Tensor) -> None:
    """The KL annealing idiom: a factor on z in both programs scales its log-ratio only."""

    def annealed_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=factor):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    annealed_guide = poutine.scale(guide, factor)
    z, log_weights = drawn(annealed_model, annealed_guide, X)
    torch.testing.assert_close(log_weights, weights_by_hand(z, X, factor))

    pyro.set_rng_seed(2)
    ours = ELBO().loss(annealed_model, annealed_guide, X)
    pyro.set_rng_seed(2)
    assert ours == pytest.approx(Trace_ELBO().loss(annealed_model, annealed_guide, X))


def test_scale_of_beta_is_the_beta_of_the_loss() -> None:
    """``beta=0.3`` and ``poutine.scale`` on the latent site are one thing."""
    pyro.set_rng_seed(2)
    loss = IWAE(4, beta=0.3).loss(model, guide, X)
    pyro.set_rng_seed(2)
    z, _ = drawn(model, guide, X)
    by_hand = IWAE(4).bound_per_datum(weights_by_hand(z, X, 0.3))
    assert loss == pytest.approx(-by_hand.sum().item())


def test_factor_in_the_model() -> None:
    def tilted(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("tilt", -(z**2))

    z, log_weights = drawn(tilted, guide, X)
    torch.testing.assert_close(log_weights, weights_by_hand(z, X) - z**2)


def test_factor_in_the_guide_is_its_density() -> None:
    """A guide that draws by hand and states log q by a factor."""

    def by_hand(x: Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.2))
        with pyro.plate("data", len(x)):
            noise = pyro.sample(
                "noise", dist.Normal(torch.zeros(()), 1.0), infer={"is_auxiliary": True}
            )
            z = x / 2 + shift + 0.9 * noise
            pyro.sample("z", dist.Delta(z))
            pyro.factor("jacobian", -torch.tensor(0.9).log(), has_rsample=True)

    z, log_weights = drawn(model, by_hand, X)
    torch.testing.assert_close(log_weights, weights_by_hand(z, X))


def test_factor_without_rsample_in_the_guide_has_a_score() -> None:
    """``has_rsample=False`` says that the draws behind the factor have no path derivative.

    The draws are Bernoulli's, made outside Pyro; enumeration gives the gradient.
    """
    logit = torch.tensor(0.4, requires_grad=True)

    def counts(n: int) -> None:
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)).mask(True))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=torch.ones(n))

    def outside(n: int) -> None:
        q = dist.Bernoulli(logits=logit)
        with pyro.plate("data", n):
            uniform = pyro.sample(
                "uniform", dist.Uniform(torch.zeros(()), 1.0), infer={"is_auxiliary": True}
            )
            z = (uniform < q.probs.detach()).to(logit.dtype)
            pyro.sample("z", dist.Delta(z))
            pyro.factor("log_q", q.log_prob(z), has_rsample=False)

    grads = []
    for _ in range(30):
        loss = ELBO(4, "score").differentiable_loss(counts, outside, 500)
        grads.append(torch.autograd.grad(loss, logit)[0] / 500)
    z = torch.tensor([0.0, 1.0])
    q = dist.Bernoulli(logits=logit)
    log_p = dist.Bernoulli(torch.tensor(0.3)).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(
        torch.ones(())
    )
    exact = -(q.log_prob(z).exp() * (log_p - q.log_prob(z))).sum()
    (expected,) = torch.autograd.grad(exact, logit)
    mean, error = torch.stack(grads).mean(), torch.stack(grads).std() / len(grads) ** 0.5
    assert abs(mean - expected) < 4 * error, (mean, expected, error)


def test_masked_prior_keeps_the_score() -> None:
    """``mask=False`` on z drops its KL; the draws still depend on the guide.

    The loss left is E_q -log p(x | z), whose gradient a sum over z gives.
    """
    logit = torch.tensor(0.4, requires_grad=True)

    def free(n: int) -> None:
        with pyro.plate("data", n):
            with poutine.mask(mask=False):
                z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=torch.ones(n).neg())

    def free_guide(n: int) -> None:
        with pyro.plate("data", n), poutine.mask(mask=False):
            pyro.sample("z", dist.Bernoulli(logits=logit))

    losses = [ELBO(4, "score").differentiable_loss(free, free_guide, 500) for _ in range(30)]
    assert all(loss.requires_grad for loss in losses)
    draws = torch.stack([torch.autograd.grad(loss, logit)[0] / 500 for loss in losses])
    z, q = torch.tensor([0.0, 1.0]), torch.sigmoid(logit)
    cost = -dist.Normal(2 * z, 1.0).log_prob(torch.tensor(-1.0))
    (exact,) = torch.autograd.grad((1 - q) * cost[0] + q * cost[1], logit)
    assert abs(draws.mean() - exact) < 4 * draws.std() / len(draws) ** 0.5


def test_deterministic_sites_count_for_nothing() -> None:
    def noted(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            loc = pyro.deterministic("loc", z)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    z, log_weights = drawn(noted, guide, X)
    torch.testing.assert_close(log_weights, weights_by_hand(z, X))


def test_runs_share_a_layout_while_no_factor_is_a_tensor() -> None:
    """A tensor's entries may change in place from step to step."""

    def layout(x: Tensor, factor: float | Tensor = 1.0) -> object:
        programs = poutine.scale(model, factor), poutine.scale(guide, factor)
        return ELBO().particles(*programs, x).layout

    assert layout(X) is layout(X)
    assert layout(X, 2.0) is layout(X, 2.0)
    assert layout(X) is not layout(X[:2])
    assert layout(X) is not layout(X, 2.0)
    assert layout(X, torch.ones(())) is not layout(X, torch.ones(()))
