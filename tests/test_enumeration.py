"""Discrete sites summed out exactly: against brute force over all their values, in float64."""

from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.ops.indexing import Vindex
from standard_errors import assert_mean
from torch import Tensor

from pyro_lvm.diagnostics import log_evidence, sample_posterior, to_inference_data
from pyro_lvm.errors import PlateError, ProgramError
from pyro_lvm.objectives import CIWAE, ELBO, IWAE, Renyi, ReweightedWakeSleep
from pyro_lvm.oracles import expected_bound, normal_grid

pytestmark = pytest.mark.usefixtures("float64")

ENUMERATE = {"enumerate": "parallel"}
PRIOR = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
LOCS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
TRANSITION = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]], dtype=torch.float64)
X = torch.tensor([0.3, -1.2, 2.2, 0.9, -0.4], dtype=torch.float64)


def nothing(*args, **kwargs) -> None:
    """The guide of a model whose latent sites are all summed out."""


def mixture(x: Tensor, scale: Tensor | float = 0.5) -> None:
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
        z = pyro.sample("z", dist.Normal(LOCS[c], 1.0))
        pyro.sample("x", dist.Normal(z + 0.3 * c, scale), obs=x)


def guide(x: Tensor, *args) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x, 0.7))


def mixture_log_p(x: Tensor, z: Tensor) -> Tensor:
    terms = [
        PRIOR[c].log()
        + dist.Normal(LOCS[c], 1.0).log_prob(z)
        + dist.Normal(z + 0.3 * c, 0.5).log_prob(x)
        for c in range(3)
    ]
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_beside_a_sampled_site(num_particles) -> None:
    particles = ELBO(num_particles).particles(mixture, guide, X)
    z = particles.values["z"]
    assert z.shape == (num_particles, len(X))
    torch.testing.assert_close(particles.log_p, mixture_log_p(X, z))
    torch.testing.assert_close(particles.log_q, dist.Normal(0.8 * X, 0.7).log_prob(z))
    assert set(particles.parts) == {"c + z + x", "z"}


@pytest.mark.parametrize(
    "objective",
    [ELBO(7), IWAE(7), CIWAE(7), Renyi(7, alpha=0.5), ReweightedWakeSleep(7)],
    ids=lambda o: type(o).__name__,
)
def test_alone_every_bound_is_the_evidence(objective) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    exact = torch.logsumexp(PRIOR.log() + dist.Normal(LOCS, 1.0).log_prob(X[:, None]), -1)
    torch.testing.assert_close(objective.bound(model, nothing, X), exact)
    pyros = TraceEnum_ELBO(max_plate_nesting=1).loss(model, nothing, X)
    assert objective.loss(model, nothing, X) == pytest.approx(pyros, abs=1e-10)
    torch.testing.assert_close(log_evidence(model, nothing, X, num_samples=3).value, exact)


def test_chain_beside_a_sampled_site() -> None:
    """Three states, four steps, a sampled offset: 81 paths by hand, dims reused by markov."""
    series = torch.randn(5, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            shift = pyro.sample("shift", dist.Normal(torch.zeros(()), 1.0))
            c = torch.zeros((), dtype=torch.long)
            for t in pyro.markov(range(4)):
                c = pyro.sample(f"c_{t}", dist.Categorical(Vindex(TRANSITION)[c]), infer=ENUMERATE)
                pyro.sample(f"x_{t}", dist.Normal(LOCS[c] + shift, 1.0), obs=x[:, t])

    def shifted(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("shift", dist.Normal(x.mean(1), 0.5))

    particles = IWAE(3).particles(model, shifted, series)
    shift = particles.values["shift"]
    paths = []
    for path in product(range(3), repeat=4):
        states = (0, *path)
        log_prior = sum(TRANSITION[a, b].log() for a, b in zip(states[:-1], path, strict=True))
        scores = [
            dist.Normal(LOCS[c] + shift, 1.0).log_prob(series[:, t]) for t, c in enumerate(path)
        ]
        paths.append(log_prior + sum(scores))
    exact = torch.stack(paths).logsumexp(0) + dist.Normal(0.0, 1.0).log_prob(shift)
    torch.testing.assert_close(particles.log_p, exact)


def test_product_over_an_inner_plate() -> None:
    """One class for each row, many observations: their product is inside the sum."""
    x = torch.randn(4, 5)  # items, rows

    def model(x: Tensor) -> None:
        with pyro.plate("rows", 5, dim=-1):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            with pyro.plate("items", 4, dim=-2):
                pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    scores = dist.Normal(LOCS, 1.0).log_prob(x[..., None]).sum(0)
    bound = IWAE(2).bound(model, nothing, x)
    torch.testing.assert_close(bound, torch.logsumexp(PRIOR.log() + scores, -1))


def global_class(x: Tensor, size: int, rows: Tensor) -> None:
    c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
    with pyro.plate("data", size, subsample=rows):
        pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x[rows])


def test_outside_the_data_plate() -> None:
    scores = dist.Normal(LOCS, 1.0).log_prob(X[:, None]).sum(0)
    exact = torch.logsumexp(PRIOR.log() + scores, 0)
    bound = ELBO().bound(global_class, nothing, X, 5, torch.arange(5))
    torch.testing.assert_close(bound, exact)


def test_outside_a_subsampled_plate_is_refused() -> None:
    with explained(PlateError, "plate 'data'", "'c' inside it", "needs all the data", "full data"):
        ELBO().loss(global_class, nothing, X, 5, torch.arange(2))


def test_scale_of_a_minibatch_is_outside_the_sum() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 50, subsample=torch.arange(5)):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    def local_and_global(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", 50, subsample=torch.arange(5)):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            pyro.sample("x", dist.Normal(LOCS[c] + shift, 1.0), obs=x)

    exact = torch.logsumexp(PRIOR.log() + dist.Normal(LOCS, 1.0).log_prob(X[:, None]), -1)
    assert IWAE(3).loss(model, nothing, X) == pytest.approx(-10 * exact.sum().item())
    particles = ELBO().particles(
        local_and_global, lambda x: pyro.sample("shift", dist.Delta(X[0])), X
    )
    shifted = dist.Normal(LOCS + X[0], 1.0).log_prob(X[:, None])
    expected = 10 * torch.logsumexp(PRIOR.log() + shifted, -1).sum()
    expected = expected + dist.Normal(0.0, 1.0).log_prob(X[0])
    torch.testing.assert_close(particles.log_p.squeeze(), expected)


def test_scales_of_their_own_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            with poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    with explained(ProgramError, "['c', 'x']", "one number", "of their own", "one poutine.scale"):
        ELBO().loss(model, nothing, X)


@pytest.mark.parametrize("around", ["x", "both"])
def test_masked_rows_count_nothing(around) -> None:
    observed = torch.tensor([True, False, True, True, False])
    data = torch.where(observed, X, torch.nan)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=observed if around == "both" else True):
            c = pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            with poutine.mask(mask=observed):
                pyro.sample("x", dist.Normal(LOCS[c], 1.0), obs=x)

    exact = torch.logsumexp(PRIOR.log() + dist.Normal(LOCS, 1.0).log_prob(X[:, None]), -1)
    bound = ELBO().bound(model, nothing, data)
    torch.testing.assert_close(bound, torch.where(observed, exact, 0.0))


def test_in_the_guide_it_is_drawn() -> None:
    """A marked site that the guide has is a latent variable like any other."""

    def with_class(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(PRIOR))
            pyro.sample("z", dist.Normal(0.8 * x, 0.7))

    particles = IWAE(6).particles(mixture, with_class, X)
    c, z = particles.values["c"], particles.values["z"]
    joint = dist.Categorical(PRIOR).log_prob(c) + dist.Normal(LOCS[c], 1.0).log_prob(z)
    torch.testing.assert_close(particles.log_p, joint + dist.Normal(z + 0.3 * c, 0.5).log_prob(X))


def test_guide_cannot_enumerate() -> None:
    def enumerating(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(PRIOR), infer=ENUMERATE)
            pyro.sample("z", dist.Normal(0.8 * x, 0.7))

    with explained(ProgramError, "'c'", "draws its sites", "enumerates", "Leave 'c' out"):
        ELBO().loss(mixture, enumerating, X)


def test_same_seed_same_draws_from_the_first_call_on() -> None:
    """Finding out that there are sites to sum out uses no random number."""
    objective = IWAE(4)
    bounds = []
    for _ in range(2):
        pyro.set_rng_seed(1)
        bounds.append(objective.bound(mixture, guide, X))
    assert torch.equal(*bounds)


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_gradients_are_exact(gradient) -> None:
    """Model, class weights and guide, against differentiated quadrature of the marginal."""
    x = torch.tensor(1.3)
    values = {"w": 0.4, "d": 1.5, "m": 0.4, "s": -0.3}
    leaf = {n: torch.tensor(v, requires_grad=True) for n, v in values.items()}

    def model(n: int) -> None:
        with pyro.plate("data", n):
            c = pyro.sample("c", dist.Bernoulli(logits=leaf["w"]), infer=ENUMERATE)
            z = pyro.sample("z", dist.Normal(leaf["d"] * c, 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x.expand(n))

    def program(n: int) -> None:
        with pyro.plate("data", n):
            pyro.sample("z", dist.Normal(leaf["m"], leaf["s"].exp()))

    e, mass = normal_grid(400)
    z = leaf["m"] + leaf["s"].exp() * e
    terms = [
        dist.Bernoulli(logits=leaf["w"]).log_prob(torch.tensor(c))
        + dist.Normal(leaf["d"] * c, 1.0).log_prob(z)
        for c in (0.0, 1.0)
    ]
    log_w = torch.stack(terms).logsumexp(0) + dist.Normal(z, 0.7).log_prob(x)
    log_w = log_w - dist.Normal(leaf["m"], leaf["s"].exp()).log_prob(z)
    exact = torch.stack(torch.autograd.grad(expected_bound(log_w, mass, 5), [*leaf.values()]))
    objective, draws = IWAE(5, gradient), []
    for _ in range(100):
        loss = objective.differentiable_loss(model, program, 1000)
        draws.append(torch.stack(torch.autograd.grad(loss, [*leaf.values()])) / -1000)
    assert_mean(torch.stack(draws), exact, max_z=5, max_error=0.03)


# Diagnostics: the summed-out sites are drawn from their exact conditional posterior.


def test_posterior_draws_of_the_class() -> None:
    """Given the guide's z, the share of each class is its conditional probability."""
    draws = sample_posterior(mixture, guide, X, num_samples=40_000, chunk_size=20_000)
    z, c = draws["z"], draws["c"]
    assert c.shape == z.shape == (40_000, len(X))
    joint = torch.stack(
        [
            PRIOR[k].log()
            + dist.Normal(LOCS[k], 1.0).log_prob(z)
            + dist.Normal(z + 0.3 * k, 0.5).log_prob(X)
            for k in range(3)
        ]
    )
    conditional = torch.softmax(joint, 0)
    for k in range(3):
        difference = (c == k).double() - conditional[k]
        error = difference.std(0) / len(z) ** 0.5
        assert (difference.mean(0).abs() < 4.5 * error).all()


def test_chain_of_classes_is_drawn_jointly() -> None:
    """A copied state: the second is always the first."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(PRIOR), infer=ENUMERATE)
            b = pyro.sample("b", dist.Categorical(Vindex(torch.eye(3))[a]), infer=ENUMERATE)
            pyro.sample("x", dist.Normal(LOCS[b], 1.0), obs=x)

    draws = sample_posterior(model, nothing, X, num_samples=500)
    assert torch.equal(draws["a"], draws["b"])
    assert len(draws["a"].unique()) == 3


def test_inference_data_has_the_class() -> None:
    container = to_inference_data(mixture, guide, X, num_samples=30, prior=True)
    assert container["posterior"]["c"].shape == (1, 30, 5)
    assert container["posterior_predictive"]["x"].shape == (1, 30, 5)
    assert container["prior"]["c"].shape == (1, 30, 5)
    c = torch.as_tensor(container["posterior"]["c"].values[0])
    z = torch.as_tensor(container["posterior"]["z"].values[0])
    expected = dist.Normal(z + 0.3 * c, 0.5).log_prob(X)
    found = torch.as_tensor(container["log_likelihood"]["x"].values[0])
    torch.testing.assert_close(found, expected)
