"""Where Pyro's multi-particle objective goes wrong, its answer and ours against exact numbers.

All means are over independent draws; each is held to four of its own standard errors, so
correct code fails one assertion in 16 000.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO
from torch import Tensor

from pyro_lvm.errors import PlateError
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import expected_bound, normal_grid

pytestmark = pytest.mark.usefixtures("float64")

K = 5
GUIDE_SCALE = 1.1


@pytest.fixture
def x() -> Tensor:
    return 2**0.5 * torch.randn(12)


def mean_and_error(draws: list[Any]) -> tuple[Tensor, Tensor]:
    """The mean of independent draws and its standard error."""
    stacked = torch.stack([torch.as_tensor(draw) for draw in draws])
    return stacked.mean(0), stacked.std(0) / len(draws) ** 0.5


def assert_mean(draws: list[Any], exact: Any) -> None:
    mean, error = mean_and_error(draws)
    assert bool(((mean - exact).abs() < 4 * error + 1e-12).all()), (mean, error, exact)


def model(x: Tensor, subsample_size: int | None = None) -> None:
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def guide(x: Tensor, subsample_size: int | None = None) -> None:
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal(x[index] / 2, GUIDE_SCALE))


def log_evidence(x: Tensor) -> Tensor:  # (N,)
    return dist.Normal(torch.zeros(()), 2**0.5).log_prob(x)


def exact_bound(x: Tensor, num_particles: int = K) -> Tensor:  # (N,)
    """The mean importance-weighted bound of each datum, by quadrature."""
    points, masses = normal_grid(400)

    def of(datum: Tensor) -> Tensor:
        z = datum / 2 + GUIDE_SCALE * points
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(datum)
        log_weights = log_p - dist.Normal(datum / 2, GUIDE_SCALE).log_prob(z)
        return expected_bound(log_weights, masses, num_particles)

    return torch.stack([of(datum) for datum in x])


def pyro_iwae(vectorize: bool, num_particles: int = K) -> RenyiELBO:
    return RenyiELBO(
        alpha=0.0, num_particles=num_particles, max_plate_nesting=1, vectorize_particles=vectorize
    )


@pytest.mark.parametrize("vectorize", [True, False])
def test_subsampling(x: Tensor, vectorize: bool) -> None:
    """Pyro's average over minibatches exceeds log p(x); ours is the bound of all the data."""
    pyros = [-pyro_iwae(vectorize, 10).loss(model, guide, x, 2) for _ in range(150)]
    ours = [-IWAE(num_particles=10).loss(model, guide, x, 2) for _ in range(150)]

    mean, error = mean_and_error(pyros)
    assert mean - 4 * error > log_evidence(x).sum()
    assert_mean(ours, exact_bound(x, 10).sum())


@pytest.mark.parametrize("scale", [torch.linspace(0.2, 4.0, 12, dtype=torch.float64), 3.0])
def test_scale_around_both_programs(x: Tensor, scale: float | Tensor) -> None:
    """A factor a row multiplies that row's bound; Pyro raises the weights to its power."""
    exact = exact_bound(x)
    scaled = [poutine.scale(program, scale) for program in (model, guide)]

    pyros = [-pyro_iwae(True).loss(*scaled, x) for _ in range(150)]
    ours = [-IWAE(num_particles=K).loss(*scaled, x) for _ in range(150)]

    mean, error = mean_and_error(pyros)
    assert (mean - (scale * exact).sum()).abs() > 8 * error
    assert_mean(ours, (scale * exact).sum())


def test_scale_leaves_bound_per_datum_alone(x: Tensor) -> None:
    scaled = [poutine.scale(program, 3.0) for program in (model, guide)]
    draws = [IWAE(num_particles=K).bound(*scaled, x) for _ in range(150)]
    assert_mean(draws, exact_bound(x))


# Discrete latents: four data, one Bernoulli each, guide logits as parameters.

COUNTS = torch.tensor([0.3, 2.1, -1.0, 1.7], dtype=torch.float64)
PRIOR = 0.3


def bernoulli_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.full((), PRIOR)))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)


def bernoulli_guide(x: Tensor) -> None:
    logits = pyro.param("logits", torch.zeros(4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=logits.repeat(len(x) // 4)))


def enumerated_loss(logits: Tensor, num_particles: int) -> Tensor:
    """The exact expected loss: a sum over how many of the K draws are one."""
    z = torch.tensor([[0.0], [1.0]])
    log_p = dist.Bernoulli(torch.full((), PRIOR)).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(
        COUNTS
    )
    log_w = log_p - dist.Bernoulli(logits=logits).log_prob(z)
    ones = torch.arange(num_particles + 1.0)[:, None]
    count = torch.stack([num_particles - ones, ones])  # (2, K + 1, 1)
    bounds = torch.logsumexp(log_w[:, None] + count.log(), 0) - torch.tensor(num_particles).log()
    masses = dist.Binomial(num_particles, logits=logits).log_prob(ones).exp()
    return -(masses * bounds).sum()


def gradients(objective: Any, data: Tensor, repeats: int) -> list[Tensor]:
    """Draws of the loss's gradient in the guide's logits, for one copy of the four data."""

    def one() -> Tensor:
        pyro.clear_param_store()
        objective.loss_and_grads(bernoulli_model, bernoulli_guide, data)
        return pyro.get_param_store()["logits"].unconstrained().grad / (len(data) / 4)

    return [one() for _ in range(repeats)]


def test_enumeration_agrees_with_the_published_numbers() -> None:
    logits = torch.zeros(4, requires_grad=True)
    loss = enumerated_loss(logits, 5)
    loss.backward()
    assert loss.item() == pytest.approx(6.917, abs=5e-4)
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.120, -0.069, 0.301, -0.028], abs=5e-4)


def test_pyro_gives_discrete_sites_no_guide_gradient() -> None:
    draws = gradients(pyro_iwae(True), COUNTS, 20)
    assert all(bool((draw == 0.0).all()) for draw in draws)


@pytest.mark.parametrize("gradient", ["score", "vimco"])
def test_discrete_sites_have_the_exact_guide_gradient(gradient: str) -> None:
    logits = torch.zeros(4, requires_grad=True)
    enumerated_loss(logits, K).backward()
    draws = gradients(IWAE(K, gradient), COUNTS.repeat(500), 40)
    assert_mean(draws, logits.grad)
    assert bool((mean_and_error(draws)[1] < 0.01).all()), "too few draws to tell"


def test_module_form(x: Tensor) -> None:
    """``objective(model, guide)`` is an nn.Module; Pyro's advertised form fails."""
    with pytest.raises(AttributeError):
        RenyiELBO()(model, guide)(x)
    draws = [IWAE(num_particles=K)(model, guide)(x) for _ in range(100)]
    assert_mean(draws, -exact_bound(x).sum())


# A global latent beside the data: its draws join all data into one weight.


def joint_model(x: Tensor, subsample_size: int | None = None) -> None:
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def joint_guide(x: Tensor, subsample_size: int | None = None) -> None:
    pyro.sample("mu", dist.Normal(x.mean(), 0.5))
    with pyro.plate("data", len(x), subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal(x[index] / 2, 0.9))


def joint_log_weights(x: Tensor, draws: int) -> Tensor:  # (draws,)
    """The same by plain tensors."""
    q_mu, q_z = dist.Normal(x.mean(), 0.5), dist.Normal(x / 2, 0.9)
    mu, z = q_mu.sample((draws, 1)), q_z.sample((draws,))
    local = dist.Normal(mu, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q_z.log_prob(z)
    ratio = dist.Normal(0.0, 1.0).log_prob(mu) - q_mu.log_prob(mu)
    return ratio[:, 0] + local.sum(-1)


def joint_log_evidence(x: Tensor) -> Tensor:
    covariance = 2 * torch.eye(len(x)) + torch.ones(len(x), len(x))
    return dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)


def test_global_latent_gives_the_joint_bound(x: Tensor) -> None:
    """One weight for all the data, with the mean of the documented joint bound."""
    reference = torch.logsumexp(joint_log_weights(x, 40_000 * K).reshape(K, -1), 0)
    exact = (reference - torch.tensor(K).log()).mean()
    ours = [IWAE(num_particles=K).bound(joint_model, joint_guide, x) for _ in range(150)]
    mean, error = mean_and_error(ours)
    assert ours[0].shape == ()
    assert abs(mean - exact) < 4 * (error + reference.std() / 200)
    assert mean < joint_log_evidence(x)


def test_global_latent_under_subsampling(x: Tensor) -> None:
    """N/B inside a joint weight is no bound: Pyro goes on, ours refuses."""
    pyros = [-pyro_iwae(True, 50).loss(joint_model, joint_guide, x, 1) for _ in range(150)]
    mean, error = mean_and_error(pyros)
    assert mean - 4 * error > joint_log_evidence(x)
    with pytest.raises(PlateError, match="plate 'data': expected every site inside it"):
        IWAE(num_particles=K).loss(joint_model, joint_guide, x, 3)


def test_global_latent_elbo_is_unbiased_under_subsampling(x: Tensor) -> None:
    exact = joint_log_weights(x, 400_000)
    ours = [-ELBO(num_particles=4).loss(joint_model, joint_guide, x, 3) for _ in range(250)]
    mean, error = mean_and_error(ours)
    assert abs(mean - exact.mean()) < 4 * error
