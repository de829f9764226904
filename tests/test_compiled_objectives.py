"""Recorded steps of every objective: the numbers, and what is kept, are those of the programs."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config
from exact_models import EXPLICIT
from pyro.nn import PyroModule
from seeded import seeded
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_lvm.gradients import GRADIENTS
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide, WithoutLabels
from pyro_lvm.kept_chains import Chains
from pyro_lvm.mcmc import RandomWalk
from pyro_lvm.missing import Completed
from pyro_lvm.models import VAE, SupervisedVAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import (
    AAE,
    ALI,
    AVB,
    IWAAE,
    IWAE,
    IWAVB,
    PAGAN,
    UIVI,
    VAEGAN,
    VGI,
    AnalyticELBO,
    ImplicitAcceptance,
    MarkovAcceptance,
    MHAcceptance,
    SecondOrderELBO,
    SemiImplicitAcceptance,
)
from pyro_lvm.testing import discover
from pyro_lvm.training import CompiledLoss, CompiledStep

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.not_simulated(reason="its operations cannot be recorded"),
]

NUM_DATA, FEATURES, LATENT = 20, 6, 2
SCORES = ("score", "vimco", "ovis")

Make = Callable[[], Objective]
Programs = Callable[[], tuple[Any, Any]]


class Model(PyroModule):
    """A class and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.of_class, self.of_vector = nn.Linear(1, FEATURES), nn.Linear(LATENT, FEATURES)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(x.new_full((len(x),), 0.3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            mean = self.of_class(y.unsqueeze(-1)) + self.of_vector(z)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, 2 * LATENT + 1)

    def forward(self, x: Tensor) -> None:
        logits, loc, log_scale = self.encoder(x).split([1, LATENT, LATENT], -1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=logits.squeeze(-1)))
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def with_a_class() -> tuple[Any, Any]:
    return Model(), Guide()


def of_vectors() -> tuple[Any, Any]:
    guide = AmortizedNormal(in_features=FEATURES, latent_features=LATENT, hidden=(8,))
    return VAE(FEATURES, LATENT, (8,), likelihood="gaussian"), guide


def of_walks() -> tuple[Any, Any]:
    model, guide = of_vectors()
    return model, RandomWalk(guide)


class Mixture(PyroModule):
    """A guide of vectors with a mixing variable."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, LATENT)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            noise = dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1)
            psi = pyro.sample("psi", noise, infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(self.encoder(x) + psi, 0.5).to_event(1))


def of_mixtures() -> tuple[Any, Any]:
    return of_vectors()[0], Mixture()


class Samples(PyroModule):
    """A target that is known by draws."""

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_ones(len(x), LATENT), 0.5).to_event(1))


def of_samples() -> tuple[Any, Any]:
    return Samples(), of_vectors()[1]


def supervised() -> tuple[Any, Any]:
    model, guide = of_vectors()
    return SupervisedVAE(model, latent_features=LATENT), WithoutLabels(guide)


def data() -> Tensor:
    return seeded(torch.rand, NUM_DATA, FEATURES, seed=1)


def with_holes() -> Tensor:
    """Every second row has one."""
    x, rows = data(), torch.arange(0, NUM_DATA, 2)
    x[rows, rows % FEATURES] = torch.nan
    return x


def of_holes() -> tuple[Any, Any]:
    model, posterior = of_vectors()
    return Completed(model), GibbsGuide(GibbsConditionals(FEATURES, hidden=(8,)), posterior)


def batches(objective: Objective, model: Any) -> list[tuple[Tensor, ...]]:
    """Two, with the numbers of the rows for chains, and with labels for a model of them."""
    x = with_holes() if isinstance(objective, VGI) else data()
    number = torch.arange(NUM_DATA)
    beside = []
    if hasattr(objective, "chains"):
        beside = [number]
    elif isinstance(model, SupervisedVAE):
        beside = [number % 10]
    return list(zip(*(part.chunk(2) for part in (x, *beside)), strict=True))


@pyro.settings.context(module_local_params=True)  # as in fit
def stepped(
    make: Make, programs: Programs, backend: str | None, with_update: bool = False
) -> list[Any]:
    """The losses of four steps, then all parameters and all that the objective keeps."""
    torch.manual_seed(0)
    objective, pair = make(), programs()
    loss = CompiledLoss(objective, *pair, backend=backend) if backend else objective(*pair)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    twice = 2 * batches(objective, pair[0])
    step = CompiledStep(loss, optimizer) if with_update else partial(by_parts, loss, optimizer)
    losses = [taken(step, batch, seed) for seed, batch in enumerate(twice)]
    if isinstance(loss, CompiledLoss):
        assert (loss.num_graphs, loss.is_eager) == (1, False)
    return tree_leaves([losses, [*loss.parameters()], objective.state_dict()])


def taken(step: Callable[..., Tensor], batch: Any, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return step(*batch)[0]


def by_parts(loss: Any, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
    optimizer.zero_grad()
    value: Tensor = loss(*batch)
    value.backward()
    optimizer.step()
    return value.detach()[None]


def check_same(
    make: Make, programs: Programs, backend: str = "graph", with_update: bool = False
) -> None:
    """Recorded steps and those of the programs, from the same random numbers."""
    recorded = stepped(make, programs, backend, with_update)
    for ours, theirs in zip(recorded, stepped(make, programs, None), strict=True):
        torch.testing.assert_close(ours, theirs)


# The explicit objectives, by gradient.


def takes(cls: type[Objective], gradient: str) -> bool:
    try:
        cls(4, gradient)
    except ValueError:
        return False
    return True


GRADIENT_CELLS = [(cls, name) for cls in EXPLICIT for name in GRADIENTS if takes(cls, name)]


@pytest.mark.parametrize(("cls", "gradient"), GRADIENT_CELLS)
def test_every_gradient_of_every_objective(cls: type[Objective], gradient: str) -> None:
    check_same(partial(cls, 4, gradient), with_a_class if gradient in SCORES else of_vectors)


# Those that keep more than their step, and those that are for programs of a kind.


def critic(features: int = LATENT, context: int | None = FEATURES, **options: Any) -> Any:
    return Discriminator(features, context, (5,), **options)


def hard_avb() -> AVB:
    """All that a discriminator can have."""
    return AVB(
        critic(spectral_norm=True),
        3,
        contrast="adaptive",
        r1=0.1,
        ema=0.5,
        num_discriminator_steps=2,
        discriminator_lr=lambda step: 0.1 / (1 + step),
    )


def gibbs() -> VGI:
    """With a bound inside that has a schedule of its own."""
    inner = IWAE(2, "dreg", beta=lambda step: 1.0 / (1 + step))
    return VGI(Chains(with_holes(), 3), inner=inner, num_targets=2, block_size=2)


def noisy(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn_like(x)


KEEPING: dict[type[Objective], tuple[Make, Programs]] = {
    AAE: (lambda: AAE(critic(context=None), 3), of_vectors),
    ALI: (lambda: ALI(critic(), 3), of_vectors),
    AVB: (hard_avb, of_vectors),
    AnalyticELBO: (lambda: AnalyticELBO(3), of_vectors),
    IWAAE: (lambda: IWAAE(critic(context=None), 3), of_vectors),
    IWAVB: (lambda: IWAVB(critic(), 3), of_vectors),
    ImplicitAcceptance: (lambda: ImplicitAcceptance(critic(context=None), 3), of_samples),
    MHAcceptance: (lambda: MHAcceptance(3, num_data=NUM_DATA), of_vectors),
    MarkovAcceptance: (
        lambda: MarkovAcceptance(3, num_data=NUM_DATA, entropy_weight=lambda step: 1.0 + step),
        of_walks,
    ),
    PAGAN: (
        lambda: PAGAN(critic(context=None), critic(FEATURES, None), critic(FEATURES), noisy, 3),
        of_vectors,
    ),
    SecondOrderELBO: (lambda: SecondOrderELBO(3), supervised),
    SemiImplicitAcceptance: (
        lambda: SemiImplicitAcceptance(3, num_mixing=2, num_data=NUM_DATA),
        of_mixtures,
    ),
    VAEGAN: (lambda: VAEGAN(critic(FEATURES, None), 3), of_vectors),
    VGI: (gibbs, of_holes),
}


@pytest.mark.parametrize("with_update", [False, True])
@pytest.mark.parametrize(("make", "programs"), KEEPING.values(), ids=[c.__name__ for c in KEEPING])
def test_what_is_kept(make: Make, programs: Programs, with_update: bool) -> None:
    """Chains, discriminators and their optimisers stand where they would."""
    check_same(make, programs, with_update=with_update)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("cls", [AVB, MHAcceptance, VGI])
def test_what_is_kept_by_inductor(cls: type[Objective]) -> None:
    with torch._inductor.config.patch(fallback_random=True):  # the random numbers of eager torch
        check_same(*KEEPING[cls], "inductor", with_update=True)


@pytest.mark.parametrize("cls", [AVB, MHAcceptance, UIVI, VGI])
def test_goes_on_from_a_saved_state(cls: type[Objective]) -> None:
    """Where the steps were recorded before it was loaded."""
    make, programs = KEEPING.get(cls, (lambda: UIVI(4), of_vectors))
    with pyro.settings.context(module_local_params=True):
        objective, pair = make(), programs()
        loss = CompiledLoss(objective, *pair, backend="graph")
        batch, _ = batches(objective, pair[0])

        def state_after(seed: int) -> dict[str, Any]:
            torch.manual_seed(seed)
            loss(*batch)
            return deepcopy(objective.state_dict())

        saved, once = state_after(0), state_after(1)
        assert str(state_after(1)) != str(once)
        objective.load_state_dict(deepcopy(saved))
        again = state_after(1)
    for one, other in zip(tree_leaves(once), tree_leaves(again), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert loss.num_graphs == 1


def test_rows_with_holes_are_of_few_kinds() -> None:
    """A step for chains that rest, and one for each eighth of the batch that has holes."""
    x, pair = with_holes(), of_holes()
    recorded, plain = (VGI(Chains(x, 3), warmup=1) for _ in range(2))
    loss, eager = CompiledLoss(recorded, *pair, backend="graph"), plain(*pair)
    kinds = []
    for seed, holed in enumerate([4, 4, 3, 5, 6, 4]):  # of ten rows
        rows = torch.cat([torch.arange(0, 20, 2)[:holed], torch.arange(1, 20, 2)[holed:]])
        values = []
        for each in (loss, eager):
            torch.manual_seed(seed)
            values.append(each(x[rows], rows))
        torch.testing.assert_close(*values)
        torch.testing.assert_close(recorded.state_dict(), plain.state_dict())
        kinds.append(loss.num_graphs)
    assert kinds == [1, 2, 2, 3, 3, 3]


def test_every_objective_is_compared() -> None:
    assert {*discover("pyro_lvm.objectives", Objective)} == {*EXPLICIT, *KEEPING}
