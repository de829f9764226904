"""Pyro's idioms under our objectives: scales, factors, plates, dtypes, kinds of program."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from pyro_lvm.errors import ParameterError, PlateError
from pyro_lvm.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor) -> None:
    shift = pyro.param("shift", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2 + shift, 0.9))


def log_evidence(x: Tensor) -> Tensor:
    return dist.Normal(torch.zeros(()), 2**0.5).log_prob(x)


def weights_by_hand(z: Tensor, x: Tensor, kl_factor: Any = 1.0) -> Tensor:
    """Log-weights of given draws under the two programs above."""
    ratio = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(x / 2 + 0.2, 0.9).log_prob(z)
    return dist.Normal(z, 1.0).log_prob(x) + kl_factor * ratio


def drawn(model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Four draws of z and their log-weights."""
    particles = IWAE(4).particles(model, guide, *args, **kwargs)
    return particles.values["z"], particles.log_weights


# Scales and factors.


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


# Plates.


def sequential_model(x: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z{i}", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])


def sequential_guide(x: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z{i}", dist.Normal(x[i] / 2, 0.5**0.5))


def test_sequential_plate_is_one_joint_weight() -> None:
    """A loop over data makes one weight of them all; with the exact posterior, log p(x)."""
    bound = IWAE(3).bound(sequential_model, sequential_guide, X)
    torch.testing.assert_close(bound, log_evidence(X).sum())


def crossed_model(x: Tensor) -> None:
    a = pyro.plate("a", x.shape[0], dim=-2)
    b = pyro.plate("b", x.shape[1], dim=-1)
    with a:
        u = pyro.sample("u", dist.Normal(torch.zeros(()), 1.0))
    with b:
        v = pyro.sample("v", dist.Normal(torch.zeros(()), 1.0))
    with a, b:
        pyro.sample("x", dist.Normal(u + v, 1.0), obs=x)


def crossed_guide(x: Tensor) -> None:
    with pyro.plate("a", x.shape[0], dim=-2):
        pyro.sample("u", dist.Normal(0.5 * x.mean(-1, keepdim=True), 0.7))
    with pyro.plate("b", x.shape[1], dim=-1):
        pyro.sample("v", dist.Normal(0.5 * x.mean(0), 0.7))


def test_crossed_plates() -> None:
    """No plate holds every site: one joint weight, as computed by hand."""
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    particles = IWAE(4).particles(crossed_model, crossed_guide, x)
    u, v = particles.values["u"], particles.values["v"]
    assert (u.shape, v.shape) == ((4, 2, 1), (4, 1, 3))
    assert particles.plates == {"u": ("a", None), "v": (None, "b")}
    prior = dist.Normal(0.0, 1.0)
    by_hand = (
        dist.Normal(u + v, 1.0).log_prob(x).sum((-2, -1))
        + (prior.log_prob(u) - dist.Normal(x.mean(-1, True) / 2, 0.7).log_prob(u)).sum((-2, -1))
        + (prior.log_prob(v) - dist.Normal(x.mean(0) / 2, 0.7).log_prob(v)).sum((-2, -1))
    )
    torch.testing.assert_close(particles.log_weights, by_hand)


def nested(program: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """The same data in an outer plate of one group more to the left."""

    def inner(x: Tensor) -> None:
        with pyro.plate("group", 2, dim=-2):
            program(x)

    return inner


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 2, 1)])
def test_one_objective_on_models_of_other_nesting(order: tuple[int, ...]) -> None:
    objective = IWAE(3)
    for depth in order:
        programs = [p if depth == 1 else nested(p) for p in (model, guide)]
        assert objective.bound(*programs, X).shape == ((3,) if depth == 1 else (2, 3))


def features_model(x: Tensor) -> None:
    """Features of a datum in a plate to the left: only the data carry it."""
    with pyro.plate("data", x.shape[-1]):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("features", x.shape[0], dim=-2):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def features_guide(x: Tensor) -> None:
    with pyro.plate("data", x.shape[-1]):
        pyro.sample("z", dist.Normal(x.mean(0), 0.9))


def test_one_objective_where_only_the_data_nest_deeper() -> None:
    objective = IWAE(5)
    assert objective.bound(model, guide, X).shape == (3,)
    assert objective.bound(features_model, features_guide, torch.ones(4, 3)).shape == (3,)


@pytest.mark.parametrize("nesting", [1, 2, 4])
def test_explicit_nesting_may_be_too_large(nesting: int) -> None:
    objective = IWAE(4, "dreg", max_plate_nesting=nesting)
    assert objective.bound(model, guide, X).shape == (3,)
    assert torch.isfinite(objective.differentiable_loss(model, guide, X))


def test_explicit_nesting_too_small() -> None:
    with pytest.raises(PlateError, match="Pass max_plate_nesting=1 or more, or leave it out"):
        IWAE(4, max_plate_nesting=0).loss(model, guide, X)


# Data types.

CODED: dict[str, tuple[Callable[[Tensor], Any], torch.dtype]] = {
    "int64 Poisson": (lambda z: dist.Poisson(z.exp()), torch.int64),
    "int32 Poisson": (lambda z: dist.Poisson(z.exp()), torch.int32),
    "int64 Categorical": (
        lambda z: dist.Categorical(logits=torch.stack([z, -z, 0 * z], -1)),
        torch.int64,
    ),
    "float32 Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.float32),
    "bool Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.bool),
    "int64 Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.int64),
    "float32 Normal": (lambda z: dist.Normal(z, 1.0), torch.float32),
    "int64 Normal": (lambda z: dist.Normal(z, 1.0), torch.int64),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", CODED)
def test_data_of_any_dtype(kind: str, masked: bool) -> None:
    """As the same data in float64, masked or not; parameters stay what they are."""
    make, dtype = CODED[kind]

    def coded_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.mask(mask=torch.tensor([True, False, True]) if masked else True):
                pyro.sample("x", make(z), obs=x)

    def blind_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.tensor(0.3), 1.0))

    x = torch.tensor([0, 1, 1])
    losses = []
    for data in (x.to(dtype), x.to(torch.float64)):
        pyro.set_rng_seed(3)
        losses.append(IWAE(4).loss_and_grads(coded_model, blind_guide, data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# Kinds of program.


class Model(PyroModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.bias = PyroParam(torch.tensor(0.0))

    def forward(self, x: Tensor, noise: float = 1.0) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + self.bias, noise), obs=x)


class Guide(PyroModule):  # type: ignore[misc]
    """The posterior family of :class:`Model`, away from the posterior at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.1))
        self.scale = PyroParam(torch.tensor(0.3), dist.constraints.positive)

    def forward(self, x: Tensor, noise: float = 1.0) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, self.scale))


class Methods:
    def model(self, x: Tensor, noise: float = 1.0) -> None:
        Model()(x, noise)

    def guide(self, x: Tensor, noise: float = 1.0) -> None:
        Guide()(x, noise)


PROGRAMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "modules": lambda: (Model(), Guide()),
    "bound methods": lambda: (Methods().model, Methods().guide),
    "partials": lambda: (partial(Model(), noise=1.0), partial(Guide(), noise=1.0)),
    "lambdas": lambda: (lambda x, **kw: Model()(x, **kw), lambda x, **kw: Guide()(x, **kw)),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_kinds_of_program(kind: str) -> None:
    losses = []
    for programs in (PROGRAMS["modules"](), PROGRAMS[kind]()):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        losses.append(IWAE(5).loss_and_grads(*programs, X, noise=1.0))
    assert losses[0] == losses[1]


def test_keyword_arguments() -> None:
    by_position = IWAE(5, max_plate_nesting=1)
    pyro.set_rng_seed(0)
    expected = by_position.bound(Model(), Guide(), X, 0.5)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(by_position.bound(Model(), Guide(), x=X, noise=0.5), expected)


# Training.


def assert_learned(guide: Guide) -> None:
    """The posterior of z is N(x / 2, 1 / 2); over seeds Adam ends with a deviation of 0.015."""
    assert abs(guide.slope.item() - 0.5) < 4 * 0.015
    assert abs(guide.scale.item() - 0.5**0.5) < 4 * 0.015


OBJECTIVES = {
    "elbo-stl": lambda: ELBO(4, "stl"),
    "iwae-dreg": lambda: IWAE(4, "dreg"),
    "iwae-reparam": lambda: IWAE(2),
}


class FixedModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.tensor(0.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_svi_learns_a_conjugate_posterior(name: str) -> None:
    x, guide = 2**0.5 * torch.randn(64), Guide()
    svi = SVI(
        FixedModel(), guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), OBJECTIVES[name]()
    )
    losses = [svi.step(x) for _ in range(250)]
    assert_learned(guide)
    exact = -log_evidence(x).sum()
    assert losses[0] > losses[-1]
    assert svi.evaluate_loss(x) == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_torch_optimiser_learns_a_conjugate_posterior(name: str, is_local: bool) -> None:
    with pyro.settings.context(module_local_params=is_local):
        x, guide = 2**0.5 * torch.randn(64), Guide()
        loss = OBJECTIVES[name]()(FixedModel(), guide)
        optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.99)
        for _ in range(250):
            optimiser.zero_grad()
            loss(x).backward()
            optimiser.step()
            schedule.step()
        assert_learned(guide)
        assert (len(pyro.get_param_store()) == 0) == is_local


def test_svi_refuses_module_local_parameters() -> None:
    with pyro.settings.context(module_local_params=True):
        svi = SVI(Model(), Guide(), pyro.optim.Adam({"lr": 0.1}), IWAE(2))
        with pytest.raises(ParameterError, match=r"(?s)is on.*pyro_lvm\.fit"):
            svi.step(X)
