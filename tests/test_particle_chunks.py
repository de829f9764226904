"""Particles in chunks: the same numbers from the same draws, in the memory of one chunk."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from seeded import seeded
from torch import Tensor, nn

from benchmarks.peak_memory import held_memory, peak_memory
from pyro_lvm import gradients
from pyro_lvm.errors import ProgramError
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
)
from pyro_lvm.particles import Particles

pytestmark = pytest.mark.usefixtures("float64")

K = 6
BATCH = 3
CASES: list[tuple[Callable[..., Objective], str]] = [
    (ELBO, "reparam"),
    (ELBO, "stl"),
    (ELBO, "score"),
    (IWAE, "reparam"),
    (IWAE, "dreg"),
    (IWAE, "vimco"),
    (IWAE, "ovis"),
    (Renyi, "dreg"),
    (MIWAE, "dreg"),
    (CIWAE, "reparam"),
    (PIWAE, "dreg"),
    (TVO, "score"),
    (ReweightedWakeSleep, "score"),
    (ReweightedWakeSleep, "dreg"),
    (AlphaDivergence, "dreg"),
    (CUBO, "dreg"),
]
each_case = pytest.mark.parametrize(
    ("make", "gradient"), CASES, ids=[f"{make.__name__}-{gradient}" for make, gradient in CASES]
)


class RowByRow(dist.Normal):
    """Normal that takes its random numbers row after row: all at once as in chunks."""

    reparameterised = True

    @property
    def has_rsample(self) -> bool:
        return self.reparameterised

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = [torch.randn(self.batch_shape[1:]) for _ in range(self.batch_shape[0])]
        return self.loc + self.scale * torch.stack(noise)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample().detach()


class Scored(RowByRow):
    reparameterised = False


class Programs(nn.Module):
    def __init__(self, law: type[RowByRow] = RowByRow) -> None:
        super().__init__()
        self.law = law
        self.leaves = nn.Parameter(torch.tensor([0.2, -0.6, 0.3, -0.2]))

    def model(self, x: Tensor, subsample: int | None = None) -> None:
        with pyro.plate("data", len(x), subsample_size=subsample) as rows:
            z = pyro.sample("z", dist.Normal(self.leaves[2], self.leaves[3].exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(self, x: Tensor, subsample: int | None = None) -> None:
        with pyro.plate("data", len(x), subsample_size=subsample) as rows:
            pyro.sample("z", self.law(x[rows] / 2 + self.leaves[0], self.leaves[1].exp()))


def step(objective: Objective, programs: Programs, *args: Any) -> tuple[float, Tensor]:
    pyro.set_rng_seed(0)
    loss = objective.differentiable_loss(programs.model, programs.guide, *args)
    (gradient,) = torch.autograd.grad(loss, programs.leaves)
    return loss.item(), gradient


@each_case
@pytest.mark.parametrize("chunk", [1, 2, 4, K])
def test_the_same_draws_give_the_same_loss_and_gradient(
    make: Callable[..., Objective], gradient: str, chunk: int
) -> None:
    scored = gradient in ("score", "vimco", "ovis")
    programs = Programs(Scored if scored else RowByRow)
    x = torch.tensor([0.5, -1.0, 1.5])
    whole, in_chunks = (
        step(make(K, gradient, chunk_particles=size), programs, x) for size in (None, chunk)
    )
    assert in_chunks[0] == pytest.approx(whole[0], rel=1e-12)
    assert torch.allclose(in_chunks[1], whole[1], rtol=1e-10, atol=1e-12)


def test_every_chunk_sees_one_minibatch() -> None:
    programs = Programs()
    x = torch.arange(20.0)
    objective = IWAE(K, chunk_particles=2)
    particles = objective.particles(programs.model, programs.guide, x, 4)
    values = particles.values["z"]  # (K, 4): each column is one datum's draws
    assert values.shape == (K, 4)
    assert particles.scale == 5.0
    spread = (values - values.mean(0)).abs().max()
    assert spread < 5 < values.mean(0).max() - values.mean(0).min()


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_a_minibatch_that_the_program_draws(gradient: str) -> None:
    """The first chunk draws it once more in the backward pass, before the same noise."""
    programs, x = Programs(), torch.arange(20.0)
    whole, in_chunks = (
        step(IWAE(K, gradient, chunk_particles=size), programs, x, 4) for size in (None, 2)
    )
    assert torch.allclose(in_chunks[1], whole[1], rtol=1e-10, atol=1e-12)


def test_free_bits_and_warm_up_see_all_chunks() -> None:
    programs = Programs()
    x = torch.tensor([0.5, -1.0, 1.5])
    for options in ({"beta": 0.3}, {"free_bits": 2.0}):
        whole, in_chunks = (
            step(ELBO(K, chunk_particles=size, **options), programs, x) for size in (None, 4)
        )
        assert torch.allclose(in_chunks[1], whole[1], rtol=1e-10, atol=1e-12)


def test_a_site_beside_the_particles_keeps_its_part() -> None:
    """An observed site that no latent reaches has one log-probability for all particles."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.tensor([0.5, -1.0])
    found = IWAE(5, chunk_particles=2).bound(model, guide, x)
    assert torch.allclose(found, dist.Normal(0.0, 1.0).log_prob(x))


class Undifferentiable(dist.Normal):
    has_rsample = False


class Wide(nn.Module):
    """Programs with more latents than particles in a few chunks can hide."""

    def __init__(self, law: type[dist.Normal]) -> None:
        super().__init__()
        self.law = law
        self.decoder = nn.Sequential(nn.Linear(20, 200), nn.Tanh(), nn.Linear(200, 50))
        self.shift = nn.Parameter(torch.zeros(20))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.law(x[:, :20] + self.shift, 1.0).to_event(1))


@pytest.mark.parametrize(
    ("make", "gradient", "waiting"),
    [
        (ELBO, "stl", 0),
        (IWAE, "reparam", 1),  # the log-weights
        (IWAE, "dreg", 2),  # and the factors of the paths
        (IWAE, "vimco", 2),  # and the signals of the scores
        (ReweightedWakeSleep, "score", 2),  # the coefficients of log p and log q
        (PIWAE, "reparam", 3),  # and the factors
    ],
)
def test_memory_is_that_of_one_chunk(
    make: Callable[..., Objective], gradient: str, waiting: int
) -> None:
    """What grows with K is counted exactly: arrays of K by B, and a random state a chunk."""
    programs = Wide(Undifferentiable if gradient in ("score", "vimco") else dist.Normal)
    many, chunk, x = 1000, 50, torch.randn(10, 50)
    array, state = many * len(x) * x.element_size(), torch.get_rng_state().numel()
    states, parameters = many // chunk * state, sum(p.nbytes for p in programs.parameters())

    def loss(num_particles: int, size: int | None) -> Callable[[], Tensor]:
        objective = make(num_particles, gradient, chunk_particles=size, max_plate_nesting=1)
        return lambda: objective.differentiable_loss(programs.model, programs.guide, x)

    def peak(forward: Callable[[], Tensor]) -> int:
        forward().backward()  # so that there are gradients to add to
        return peak_memory(lambda: forward().backward())

    few, in_chunks = loss(chunk, None), loss(many, chunk)
    few_of_each = 16 * len(x) * x.element_size()  # the bound, and what its derivative needs
    assert held_memory(in_chunks) <= waiting * array + states + few_of_each
    slopes = 2 * array  # of log p and of log q, in the place of the log-weights
    more = slopes + max(0, waiting - 1) * array + states + parameters
    assert peak(in_chunks) <= peak(few) + more


@pytest.mark.parametrize("method", ["bound", "loss", "log_weights"])
def test_an_evaluation_keeps_no_draws(method: str) -> None:
    programs, x = Wide(dist.Normal), torch.randn(10, 50)
    objective = IWAE(1000, chunk_particles=50, max_plate_nesting=1)

    def peak(name: str) -> int:
        return peak_memory(lambda: getattr(objective, name)(programs.model, programs.guide, x))

    draws = 1000 * 10 * 20 * x.element_size()
    assert peak(method) + draws < peak("particles")


class Reads(Objective):
    """A loss of what chunks do not keep."""

    def __init__(self, reads: str, **how: Any) -> None:
        self.reads = reads
        super().__init__(K, **how)

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def annealed(self, particles: Particles) -> Tensor:
        return particles.log_weights * len(getattr(particles, self.reads))


@pytest.mark.parametrize("reads", ["values", "parts"])
def test_what_chunks_do_not_keep_is_refused(reads: str) -> None:
    programs, x = Programs(), torch.tensor([0.5, -1.0, 1.5])
    assert step(Reads(reads), programs, x)[0]
    with explained(
        ProgramError, "particles in chunks", "log-weights", "values or parts", "chunk_particles"
    ):
        step(Reads(reads, chunk_particles=4), programs, x)


@pytest.mark.parametrize("chunk", [0, 1.5, "50"])
def test_a_chunk_is_a_count(chunk: Any) -> None:
    expected = "an integer >= 1"
    with explained(ProgramError, "chunk_particles", expected, repr(chunk), "chunk_particles=50"):
        IWAE(10, chunk_particles=chunk)


@pytest.mark.parametrize("make", [ELBO, IWAE])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_closed_forms_of_the_baselines(make: type[Objective], count: int) -> None:
    log_weights = 3 * seeded(torch.randn, count, 4)
    objective = make(count)
    generic = gradients.bound_of_others(objective.bound_per_datum, log_weights)
    assert torch.allclose(objective.bound_of_others(log_weights), generic)
    instead = torch.linspace(-1, 1, 4 * count).reshape(count, 4)
    generic = gradients.bound_with(objective.bound_per_datum, log_weights, instead)
    assert torch.allclose(objective.bound_with(log_weights, instead), generic)
