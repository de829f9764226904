"""Divergences in closed form: the ELBO, less of its noise, and where they are known."""

from collections.abc import Callable
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import X, model
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import BayesianMLP
from pyro_lvm.objectives import ELBO, AnalyticELBO
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.training import CompiledLoss

pytestmark = pytest.mark.usefixtures("float64", "local")

Y = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64)


@pytest.fixture
def local() -> Any:
    """Guides of one class that share no parameter."""
    with pyro.settings.context(module_local_params=True):
        yield


def network(
    prior: str = "normal", num_data: int | None = None
) -> tuple[BayesianMLP, NormalWeights]:
    model = BayesianMLP(1, (4,), prior=prior, noise_scale=0.5, num_data=num_data)
    return model, NormalWeights(model.starts(), start_scale=0.3)


def seeded(run: Callable[[], Any]) -> Any:
    pyro.set_rng_seed(1)
    return run()


@pytest.mark.parametrize("prior", ["normal", "log_uniform", "ard"])
@pytest.mark.parametrize("num_data", [None, 30])
def test_it_is_what_pyro_computes(prior: str, num_data: int | None) -> None:
    """At the same draws, of a whole data set and of a tenth of one; its gradient too."""
    programs = network(prior, num_data)
    parameters = list(programs[1].parameters())
    found, expected = (
        seeded(lambda by=by: by.differentiable_loss(*programs, X[:, None], Y))
        for by in (AnalyticELBO(), TraceMeanField_ELBO())
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    slopes = [torch.autograd.grad(loss, parameters) for loss in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


def test_the_mean_is_the_closed_form_of_the_elbo() -> None:
    """Within four standard errors, which are below a hundredth of the divergence."""
    oracle, x = LinearGaussian(torch.randn(3, 2), torch.ones(3)), torch.randn(4, 3)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 0.8).to_event(1))

    weights = AnalyticELBO(20_000).log_weights(oracle.model, guide, x)
    q = dist.MultivariateNormal(x[:, :2], 0.64 * torch.eye(2))
    gap = torch.distributions.kl_divergence(q, oracle.posterior(x))
    error = weights.std(0) / len(weights) ** 0.5
    assert (error < 0.01 * gap + 0.01).all()
    assert ((weights.mean(0) - oracle.log_evidence(x) + gap).abs() < 4 * error).all()


def test_what_is_left_of_a_draw_is_the_likelihood() -> None:
    model, guide = network()
    particles = AnalyticELBO(7).particles(model, guide, X[:, None], Y)
    likelihood = model.outcome(X[:, None], particles.values).log_prob(Y)
    divergence = likelihood.reshape(7, 3).sum(1) - particles.log_weights
    torch.testing.assert_close(divergence, divergence[:1].expand(7), rtol=1e-9, atol=0)


def test_warm_up_scales_the_divergence() -> None:
    model, guide = network("log_uniform")
    data = (X[:, None], Y)
    none, half, whole = (
        seeded(lambda beta=beta: AnalyticELBO(beta=beta).loss(model, guide, *data))
        for beta in (LinearWarmup(10), 0.5, 1.0)
    )
    assert half == pytest.approx((none + whole) / 2, rel=1e-12)
    assert whole != pytest.approx(none, rel=1e-3)


# Sites whose divergence is no function of their own distributions, or not known.


def chain(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Normal(torch.zeros(()), 1.0))
        second = pyro.sample("second", dist.Normal(first, 1.0))
        pyro.sample("x", dist.Normal(second, 1.0), obs=x)


def along(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Normal(x / 3, 0.9))
        pyro.sample("second", dist.Normal((first + x) / 2, 0.6))


def against(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        second = pyro.sample("second", dist.Normal(x / 2, 0.7))
        pyro.sample("first", dist.Normal(second / 2, 0.6))


@pytest.mark.parametrize("guide", [along, against])
def test_a_chain_has_the_elbo_on_average(guide: Callable[..., Any]) -> None:
    """Against draws of the ELBO: within four standard errors of the difference."""
    draws = [by(40_000).log_weights(chain, guide, X) for by in (AnalyticELBO, ELBO)]
    error = sum(d.var(0) / len(d) for d in draws).sqrt()
    assert (error < 0.02).all()
    assert ((draws[0].mean(0) - draws[1].mean(0)).abs() < 4 * error).all()


def masked(x: Tensor) -> None:
    with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def scaled(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=0.3):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def heavy(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.StudentT(3.0, torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def normal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.8))


def masked_normal(x: Tensor) -> None:
    poutine.mask(normal, mask=x > 0)(x)


def coin(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(())))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def tossed(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(torch.sigmoid(x)))


@pytest.mark.parametrize(
    ("model", "guide"), [(masked, masked_normal), (scaled, normal), (heavy, normal), (coin, tossed)]
)
def test_others_are_scored_at_their_draws(
    model: Callable[..., Any], guide: Callable[..., Any]
) -> None:
    found, expected = (
        seeded(lambda by=by: by(5, "score").log_weights(model, guide, X))
        for by in (AnalyticELBO, ELBO)
    )
    assert torch.equal(found, expected)


def test_subsampled_data_count_as_many_times() -> None:
    def of(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: poutine.scale(program, 10.0)(x)

    loss = seeded(lambda: AnalyticELBO().loss(model, normal, X))
    tenfold = seeded(lambda: AnalyticELBO().loss(of(model), of(normal), X))
    assert tenfold == pytest.approx(10 * loss, rel=1e-12)
    closed = (0.5 * (X / 2).square() + 0.5 * (0.64 - 1) - log(0.8)).sum()
    z = seeded(lambda: AnalyticELBO().particles(model, normal, X)).values["z"]
    assert loss == pytest.approx(float(closed - dist.Normal(z, 1.0).log_prob(X).sum()), rel=1e-12)


def test_a_recorded_step_has_its_gradient() -> None:
    model, guide = network("log_uniform")
    parameters, data = list(guide.parameters()), (X[:, None], Y)

    def gradient(module: Any) -> Any:
        module(*data)  # a step is recorded at the first
        return seeded(lambda: torch.autograd.grad(module(*data), parameters))

    recorded = gradient(CompiledLoss(AnalyticELBO(6), model, guide, backend="graph"))
    torch.testing.assert_close(recorded, gradient(AnalyticELBO(6)(model, guide)))
