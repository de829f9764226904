"""The acceptance rate and its bounds against quadrature; chains of each datum; what is refused."""

from copy import deepcopy
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from standard_errors import assert_mean
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import (
    CheckpointError,
    DataError,
    DensityError,
    MixingError,
    PlateError,
    ProgramError,
)
from pyro_lvm.mcmc import RandomWalk
from pyro_lvm.objectives import MarkovAcceptance, MHAcceptance
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

LOWER_BOUNDS = ("jensen", "symmetric")


def target() -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


class Proposal(PyroModule):
    """A Normal, wider than the target and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.5))
        self.log_scale = nn.Parameter(torch.tensor(log(1.5)))

    def forward(self) -> None:
        pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()))


def by_quadrature(guide: Proposal) -> dict[str, Tensor]:
    """The rate, and its two bounds, differentiable in the guide's parameters."""
    grid = torch.linspace(-12.0, 12.0, 2401)
    p = dist.Normal(0.0, 1.0).log_prob(grid)
    q = dist.Normal(guide.loc, guide.log_scale.exp()).log_prob(grid)
    log_ratio = (p - q) - (p - q)[:, None]  # of the state, then the proposal
    density = (p[:, None] + q).exp()

    def mean(of: Tensor) -> Tensor:
        return torch.trapezoid(torch.trapezoid(density * of, grid), grid)

    return {
        "rate": mean(log_ratio.clamp(max=0.0).exp()),
        "jensen": mean(log_ratio.clamp(max=0.0)),
        "symmetric": mean(log_ratio),
    }


def at_the_target(lower_bound: str, num_particles: int) -> MHAcceptance:
    """With states that come from the target."""
    objective = MHAcceptance(num_particles, lower_bound=lower_bound)
    objective.chains.start(None, {"z": torch.randn(num_particles)})
    return objective


@pytest.mark.parametrize("lower_bound", LOWER_BOUNDS)
def test_rate_and_bounds_are_those_of_quadrature(lower_bound: str) -> None:
    guide, count = Proposal(), 100_000
    exact = {name: value.detach() for name, value in by_quadrature(guide).items()}
    objective = at_the_target(lower_bound, count)
    log_weights = objective.log_weights(target, guide)
    states, proposals = log_weights.chunk(2)
    log_ratio = proposals - states
    terms = log_ratio.clamp(max=0.0) if lower_bound == "jensen" else log_ratio
    error = terms.std() / count**0.5
    assert (objective.bound_per_datum(log_weights) - exact[lower_bound]).abs() < 4 * error
    rate = log_ratio.clamp(max=0.0).exp()
    found = objective.acceptance(target, guide)
    assert (found - exact["rate"]).abs() < 4 * 2**0.5 * rate.std() / count**0.5
    assert exact["jensen"] < exact["rate"].log()
    assert 1 - (-exact["symmetric"] / 2).sqrt() < exact["rate"]


@pytest.mark.parametrize("lower_bound", LOWER_BOUNDS)
def test_gradient_is_that_of_the_bound(lower_bound: str) -> None:
    guide, repeats = Proposal(), 200
    parameters = [guide.loc, guide.log_scale]
    exact = torch.stack(torch.autograd.grad(by_quadrature(guide)[lower_bound], parameters))
    draws = []
    for _ in range(repeats):
        loss = at_the_target(lower_bound, 1000).differentiable_loss(target, guide)
        draws.append(-torch.stack(torch.autograd.grad(loss, parameters)))
    assert_mean(torch.stack(draws), exact, max_z=4, max_error=0.02)


def test_chains_come_to_the_target() -> None:
    guide = Proposal()
    objective = MHAcceptance(5000, num_warmup=0)
    torch.manual_seed(0)
    for _ in range(30):
        objective.differentiable_loss(target, guide)
    z = objective.chains.values["z"]
    assert z.mean().abs() < 4 * z.std() / 5000**0.5
    assert (z.square().mean() - 1).abs() < 4 * 2**0.5 / 5000**0.5


def test_the_model_gets_no_gradient() -> None:
    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.3))

        def forward(self) -> None:
            stated = pyro.param("stated", torch.tensor(0.1))
            pyro.sample("z", dist.Normal(self.loc + stated, 1.0))

    model, guide = Model(), Proposal()
    MHAcceptance(10).differentiable_loss(model, guide).backward()
    assert model.loc.grad is None
    assert pyro.param("stated").unconstrained().grad is None
    assert model.loc.requires_grad
    assert guide.loc.grad is not None


# Data.


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(40, 2) @ oracle.loading.T + torch.randn(40, 4) * oracle.noise


class Linear(PyroModule):
    """A linear map to the posterior's mean, and one scale."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(4, 2)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), self.log_scale.exp()).to_event(1))


@pytest.mark.parametrize("lower_bound", LOWER_BOUNDS)
def test_the_exact_posterior_is_always_accepted(
    lower_bound: str, oracle: LinearGaussian, x: Tensor
) -> None:
    objective = MHAcceptance(8, lower_bound=lower_bound, num_data=40)
    programs, index = (oracle.model, oracle.exact_guide), torch.arange(40)
    torch.testing.assert_close(objective.bound(*programs, x, index), torch.zeros(40))
    torch.testing.assert_close(objective.acceptance(*programs, x), torch.ones(40))


def test_minibatches_keep_chains_of_their_own_rows(oracle: LinearGaussian, x: Tensor) -> None:
    guide, objective = Linear(), MHAcceptance(16, num_data=40)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
    module = objective(oracle.model, guide)
    before = objective.acceptance(oracle.model, guide, x).mean()
    for _ in range(60):
        for rows in torch.randperm(40).split(10):
            optimizer.zero_grad()
            module(x[rows], rows).backward()
            optimizer.step()
    assert objective.acceptance(oracle.model, guide, x).mean() > before + 0.2
    z, exact = objective.chains.values["z"], oracle.posterior(x)
    assert z.shape == (16, 40, 2)
    spread = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    scores = (z.mean(0) - exact.loc) / spread * 4  # 16 chains: standard Normal
    assert 0.7 < scores.square().mean().sqrt() < 1.35, "80 scores, 1 +- 0.08"


def test_fit_trains_by_it(oracle: LinearGaussian, x: Tensor) -> None:
    class Indexed(Linear):
        def forward(self, x: Tensor, index: Tensor | None = None) -> None:
            super().forward(x)

    def model(x: Tensor, index: Tensor | None = None) -> None:
        oracle.model(x)

    guide, objective = Indexed(), MHAcceptance(8, num_data=40)
    data = x, torch.arange(40)
    result = fit(model, guide, data, objective, batch_size=10, max_steps=60, lr=0.05)
    assert objective.chains.started.all()
    first, last = result.history["loss"][0], result.history["loss"][-1]
    assert last < first, "minus a lower bound on the log of the acceptance rate"


def test_state_goes_on_where_it_was(oracle: LinearGaussian, x: Tensor) -> None:
    guide, objective = Linear(), MHAcceptance(4, num_data=40)
    rows = torch.arange(7, 17)
    objective.differentiable_loss(oracle.model, guide, x[rows], rows)
    restored = MHAcceptance(4, num_data=40)
    restored.load_state_dict(objective.state_dict())
    losses = []
    for each in (objective, deepcopy(objective), restored):
        torch.manual_seed(1)
        steps = [each.differentiable_loss(oracle.model, guide, x[:20], torch.arange(20))]
        losses.append(
            torch.stack([*steps, each.differentiable_loss(oracle.model, guide, x[rows], rows)])
        )
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    with pytest.raises(CheckpointError, match="saved chains: expected chains of 5 rows, got 40"):
        MHAcceptance(4, num_data=5).load_state_dict(objective.state_dict())


# Bad input.


def test_bad_input_is_named(oracle: LinearGaussian, x: Tensor) -> None:
    guide = Linear()
    with pytest.raises(ProgramError, match="lower_bound: expected one of"):
        MHAcceptance(lower_bound="pinsker")
    objective = MHAcceptance(4, num_data=40)
    with pytest.raises(DataError, match="index: expected the number of each row, got none"):
        objective.differentiable_loss(oracle.model, guide, x)
    with pytest.raises(DataError, match="index: expected rows 0 to 39, got 40"):
        objective.differentiable_loss(oracle.model, guide, x, torch.arange(1, 41))
    with pytest.raises(PlateError, match="num_data: expected the size of the one data plate"):
        MHAcceptance(4).differentiable_loss(oracle.model, guide, x)


def test_a_minibatch_beside_a_latent_of_all_data_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 30, subsample_size=5) as index:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 0.5))

    with pytest.raises(PlateError, match="plate 'data': expected all data, to accept moves"):
        MHAcceptance(4).differentiable_loss(model, guide, torch.randn(30))


def test_guides_without_a_density_are_refused() -> None:
    def implicit() -> None:
        pyro.sample("z", Implicit(lambda shape: torch.randn(shape)))

    def mixed() -> None:
        psi = pyro.sample("psi", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(psi, 1.0))

    for guide in (implicit, mixed):
        with pytest.raises((DensityError, MixingError)):
            MHAcceptance(4).differentiable_loss(target, guide)


def test_a_site_without_rsample_is_refused() -> None:
    def model() -> None:
        pyro.sample("z", dist.Poisson(2.0))

    def guide() -> None:
        pyro.sample("z", dist.Poisson(pyro.param("rate", torch.tensor(1.0))))

    with pytest.raises(ProgramError, match="site 'z': expected a reparameterised distribution"):
        MHAcceptance(4).differentiable_loss(model, guide)


# Minibatches of all data.


class Regression(PyroModule):
    """One coefficient for all data, in a plate that may be subsampled."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.x, self.y = x, y

    def forward(self, rows: Tensor) -> None:
        slope = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(self.x), subsample=rows):
            pyro.sample("y", dist.Normal(slope * self.x[rows], 1.0), obs=self.y[rows])


class Coefficient(Proposal):
    def forward(self, rows: Tensor) -> None:
        super().forward()


@pytest.mark.parametrize("markov", [False, True])
def test_minibatches_have_the_mean_of_all_data(markov: bool) -> None:
    x = torch.randn(12)
    model, every = Regression(x, 0.4 * x + torch.randn(12)), torch.arange(12)
    guide: Any = Coefficient()
    kind: Any = MarkovAcceptance if markov else MHAcceptance
    objective = kind(50, lower_bound="symmetric")
    if markov:
        guide = RandomWalk(guide, 0.3)
    objective.move(model, guide, every, num_moves=20)
    states = objective.chains.values["z"].clone()

    def step(rows: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        loss = objective.differentiable_loss(model, guide, rows)
        return loss, torch.autograd.grad(loss, guide.log_scale)[0]

    batches = [step(rows) for rows in torch.randperm(12).split(3)]
    assert torch.equal(objective.chains.values["z"], states), "not moved by minibatches"
    whole = step(every)
    for part, exact in zip(zip(*batches, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(part).mean(0), exact)
    assert not torch.equal(objective.chains.values["z"], states)


def test_minibatches_neither_accept_nor_clamp() -> None:
    x = torch.randn(12)
    model, guide, every = Regression(x, x), Coefficient(), torch.arange(12)
    for lower_bound, match in (("jensen", "symmetric"), ("symmetric", "objective.move")):
        objective = MHAcceptance(4, lower_bound=lower_bound)
        with pytest.raises(PlateError, match=f"(?s)to accept moves, got a minibatch.*{match}"):
            objective.differentiable_loss(model, guide, every[:3])
    objective.move(model, guide, every)
    with pytest.raises(PlateError, match="to accept moves"):
        objective.acceptance(model, guide, every[:3])
