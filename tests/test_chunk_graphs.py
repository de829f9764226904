"""Particles in chunks, by graphs: numbers, and random numbers, are those of the programs."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from test_models import VARIANTS
from test_particle_chunks import K, Programs, RowByRow, Scored, Wide, each_case
from torch import Tensor, nn

from benchmarks.peak_memory import peak_memory
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.training import CompiledLoss, CompiledStep
from pyro_lvm.training import chunk_graphs as module

pytestmark = pytest.mark.usefixtures("float64")

X = [0.5, -1.0, 1.5]


@pytest.fixture(autouse=True)
def _plain_parameters() -> Iterator[None]:
    with pyro.settings.context(module_local_params=True):  # as in fit
        yield


class Program(PyroModule):
    """One of ``Programs``, with its parameters."""

    def __init__(self, programs: Any, name: str) -> None:
        super().__init__()
        self.programs = programs
        self._name_of_program = name

    def forward(self, *args: Any) -> None:
        getattr(self.programs, self._name_of_program)(*args)


def both(programs: nn.Module) -> tuple[Program, Program]:
    return Program(programs, "model"), Program(programs, "guide")


def pair(objective: Objective, programs: nn.Module, backend: str = "graph") -> tuple[Any, Any]:
    """The loss by graphs, and as it is."""
    model, guide = both(programs)
    return CompiledLoss(objective, model, guide, backend=backend), objective(model, guide)


def seeded(loss: Any, programs: Programs, *args: Any, seed: int = 0) -> tuple[Tensor, Tensor]:
    pyro.set_rng_seed(seed)
    value = loss(*args)
    return value.detach(), torch.autograd.grad(value, programs.leaves)[0]


def check_same(
    objective: Objective,
    programs: Programs,
    *args: Any,
    num_graphs: int = 1,
    backend: str = "graph",
) -> None:
    """Three steps, each from the same random numbers as the programs take it."""
    recorded, plain = pair(objective, programs, backend)
    for seed in range(3):
        objective.step = seed
        ours = seeded(recorded, programs, *args, seed=seed)
        objective.step = seed
        torch.testing.assert_close(ours, seeded(plain, programs, *args, seed=seed))
    assert (recorded.num_graphs, recorded.is_eager) == (num_graphs, False)


@each_case
def test_every_gradient_is_that_of_the_programs(
    make: Callable[..., Objective], gradient: str
) -> None:
    """With fewer particles in the last chunk."""
    programs = Programs(Scored if gradient in ("score", "vimco", "ovis") else RowByRow)
    check_same(make(K, gradient, chunk_particles=4), programs, torch.tensor(X))


@pytest.mark.parametrize("name", ["HierarchicalVAE", "LinearGaussianSSM", "SDGM", "VAE-mixed"])
def test_models_of_several_sites(name: str) -> None:
    pyro.set_rng_seed(0)
    model = VARIANTS[name]()
    x = model(size=4).detach()
    guide = AutoNormal(model)
    guide(x)  # makes its parameters
    losses = [
        CompiledLoss(IWAE(5, "dreg", chunk_particles=2), model, guide, backend="graph"),
        IWAE(5, "dreg", chunk_particles=2)(model, guide),
    ]
    found = []
    for loss in losses:
        loss.zero_grad()
        pyro.set_rng_seed(1)
        loss(x).backward()
        found.append([p.grad for p in loss.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)
    assert not losses[0].is_eager


def test_every_chunk_sees_the_minibatch_that_the_program_drew() -> None:
    check_same(ELBO(K, chunk_particles=2), Programs(), torch.arange(20.0), 4)


def test_a_schedule_that_needs_each_site_at_some_steps() -> None:
    """Warm-up reads log p and log q by site, and ends at the third step."""
    warm_up = ELBO(K, beta=lambda step: min(1.0, (1 + step) / 3), chunk_particles=2)
    check_same(warm_up, Programs(), torch.tensor(X), num_graphs=2)
    check_same(ELBO(K, free_bits=2.0, chunk_particles=4), Programs(), torch.tensor(X))


@pytest.mark.parametrize("around", ["guide", "both"])
def test_scaled_densities(around: str) -> None:
    """The factor of a relay is the guide's too."""

    class Scaled(Programs):
        def model(self, x: Tensor, subsample: int | None = None) -> None:
            factor = 0.5 if around == "both" else 1.0
            pyro.poutine.scale(super().model, scale=factor)(x)

        def guide(self, x: Tensor, subsample: int | None = None) -> None:
            pyro.poutine.scale(super().guide, scale=0.5)(x)

    check_same(IWAE(K, "dreg", chunk_particles=2), Scaled(), torch.tensor(X))


def test_an_optimiser_takes_its_own_step() -> None:
    found = []
    for backend in ("graph", None):
        programs = Programs()
        objective = IWAE(K, "dreg", chunk_particles=2)
        recorded, plain = pair(objective, programs)
        optimizer = torch.optim.Adam([programs.leaves], lr=0.1)
        step = CompiledStep(recorded, optimizer)
        for seed in range(3):
            pyro.set_rng_seed(seed)
            if backend:
                step(torch.tensor(X))
            else:
                optimizer.zero_grad()
                plain(torch.tensor(X)).backward()
                optimizer.step()
        assert objective.step == 3
        found.append(programs.leaves.detach().clone())
    torch.testing.assert_close(*found)


def test_statistics_of_a_network_move_as_they_do() -> None:
    """Twice a chunk, as where the programs run once more in the backward pass."""
    moved = []
    for recorded in (True, False):
        pyro.set_rng_seed(0)
        programs = Wide(dist.Normal)
        programs.decoder = nn.Sequential(nn.Linear(20, 4), Statistics(), nn.Linear(4, 50))
        objective = IWAE(K, chunk_particles=2, max_plate_nesting=1)  # no look beforehand
        loss = pair(objective, programs)[0 if recorded else 1]
        x = torch.randn(10, 50)
        for seed in range(2):
            pyro.set_rng_seed(seed)
            loss(x).backward()
        moved.append([*programs.buffers(), *(p.grad for p in programs.parameters())])
    torch.testing.assert_close(*moved)


class Statistics(nn.Module):
    """Takes the batch's mean away and keeps a running one, as batch normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, h: Tensor) -> Tensor:
        mean = h.mean((0, 1))
        self.mean.lerp_(mean.detach(), 0.1)
        return h - mean


def test_memory_is_that_of_one_chunk() -> None:
    """Recorded steps take no more than the programs do."""
    programs, x = Wide(dist.Normal), torch.randn(10, 50)
    losses = pair(IWAE(1000, "dreg", chunk_particles=50, max_plate_nesting=1), programs)
    for loss in losses:
        loss(x).backward()
    recorded, plain = (peak_memory(lambda loss=loss: loss(x).backward()) for loss in losses)
    of_one_chunk = 50 * len(x) * 200 * x.element_size()  # the hidden layer
    assert recorded <= plain + 2 * of_one_chunk


# What cannot be recorded.


def falls_back(objective: Objective, programs: Programs, reason: str) -> None:
    """With one warning, and the same numbers."""
    recorded, plain = pair(objective, programs)
    with pytest.warns(UserWarning, match=reason):
        recorded(torch.tensor(X))
    assert recorded.is_eager
    ours, theirs = (seeded(loss, programs, torch.tensor(X)) for loss in (recorded, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_factor_that_is_a_tensor() -> None:
    """It may be another one at each step."""

    class Weighted(Programs):
        def model(self, x: Tensor, subsample: int | None = None) -> None:
            pyro.poutine.scale(super().model, scale=torch.tensor([1.0, 2.0, 1.0]))(x)

        def guide(self, x: Tensor, subsample: int | None = None) -> None:
            pyro.poutine.scale(super().guide, scale=torch.tensor([1.0, 2.0, 1.0]))(x)

    falls_back(IWAE(K, chunk_particles=2), Weighted(), "a tensor in poutine.scale")


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_draws_that_a_tensor_masks(gradient: str) -> None:
    """dreg reads the mask, which may be another one at each step."""

    class Masked(Programs):
        def model(self, x: Tensor, subsample: int | None = None) -> None:
            with pyro.plate("data", len(x)):
                with pyro.poutine.mask(mask=x > 0):
                    z = pyro.sample("z", dist.Normal(self.leaves[2], self.leaves[3].exp()))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x: Tensor, subsample: int | None = None) -> None:
            pyro.poutine.mask(super().guide, mask=x > 0)(x)

    falls_back(IWAE(K, gradient, chunk_particles=2), Masked(), "in poutine.mask around draws")


def test_a_branch_on_a_value() -> None:
    class Branching(Programs):
        def model(self, x: Tensor, subsample: int | None = None) -> None:
            if self.leaves[0] > 0:
                super().model(x)

    falls_back(IWAE(K, chunk_particles=2), Branching(), "if self.leaves")


def test_random_numbers_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that draws once more in the gradient would make it another particle's.

    The data's own part of the sums is large: it hides the difference from a relative tolerance.
    """

    def reordered(step: Any, inputs: Any, made: list[Any] = []) -> Any:  # noqa: B006
        made.append(step)
        run = step.run
        second = len(made) % 2 == 0
        return step._replace(
            run=lambda *args: [torch.randn(1), run(*args)][1] if second else run(*args)
        )

    graphs = module.ChunkGraphs.__init__
    monkeypatch.setattr(
        module.ChunkGraphs,
        "__init__",
        lambda self, parameters, _: graphs(self, parameters, reordered),
    )
    falls_back(IWAE(K, chunk_particles=2), Far(dist.Normal), "in another order")


class Far(Programs):
    def model(self, x: Tensor, subsample: int | None = None) -> None:
        super().model(x)
        pyro.factor("far", torch.tensor(-1e4))


# Compiled.


class Shifted(nn.Module):
    """Programs whose gradient tells what the loss was: log w is linear in the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves = nn.Parameter(torch.tensor(0.7))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.leaves.expand(len(x)), 1.0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_a_compiled_gradient_is_of_the_same_draws() -> None:
    r"""With noise e, the loss is :math:`\sum \mu^2 / 2 + \mu e`, its slope :math:`\sum \mu + e`."""
    programs, x = Shifted(), torch.zeros(4)
    compiled, _ = pair(ELBO(6, chunk_particles=4), programs, "inductor")
    seen = set()
    for _ in range(5):
        loss = compiled(x)
        (slope,) = torch.autograd.grad(loss, programs.leaves)
        mean = programs.leaves.detach()
        torch.testing.assert_close(slope, loss.detach() / mean + len(x) * mean / 2)
        seen.add(loss.item())
    assert len(seen) == 5
    assert not compiled.is_eager


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("make", "gradient"), [(IWAE, "dreg"), (IWAE, "vimco")])
def test_compiled_gradients(make: Callable[..., Objective], gradient: str) -> None:
    programs = Programs(Scored if gradient == "vimco" else RowByRow)
    with torch._inductor.config.patch(fallback_random=True):  # the random numbers of eager torch
        objective = make(K, gradient, chunk_particles=4)
        check_same(objective, programs, torch.tensor(X), backend="inductor")
