"""Acceptance of semi-implicit proposals against enumeration and quadrature, and what is refused."""

from itertools import product
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SemiImplicitGuide
from pyro_lvm.objectives import MHAcceptance, SemiImplicitAcceptance
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

MIXING = {"is_auxiliary": True}
LOWER_BOUNDS = ("jensen", "symmetric")
SHARE = 0.3
GRID = torch.linspace(-9.0, 9.0, 721, dtype=torch.float64)


def target() -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


class Sides(PyroModule):
    """A coin that chooses between two Normals."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.8))
        self.log_scale = nn.Parameter(torch.tensor(log(0.9)))

    def given(self, side: Tensor) -> dist.Normal:
        return dist.Normal(self.loc * (2 * side - 1), self.log_scale.exp())

    def forward(self) -> None:
        side = pyro.sample("side", dist.Bernoulli(torch.tensor(SHARE)), infer=MIXING)
        pyro.sample("z", self.given(side))


def exact(guide: Sides, num_mixing: int | None) -> dict[str, Tensor]:
    """The rate and its two bounds with J mixing draws, or with the density; differentiable."""
    coins = torch.tensor([0.0, 1.0], dtype=GRID.dtype)
    weight = torch.where(coins == 1, SHARE, 1 - SHARE)
    density = guide.given(coins[:, None]).log_prob(GRID)  # (2, grid)
    p = dist.Normal(0.0, 1.0).log_prob(GRID)
    if num_mixing is None:
        mixture = (density + weight.log()[:, None]).logsumexp(0)
        states, proposals = [(p, p - mixture)], [(mixture, p - mixture)]
    else:
        states, proposals = [], []
        for sides in product((0, 1), repeat=num_mixing + 1):
            log_share = weight[list(sides)].log().sum()
            average = density[list(sides)].logsumexp(0) - log(num_mixing + 1)
            states.append((p + log_share, p - average))  # independent of the state
            proposals.append((density[sides[0]] + log_share, p - average))  # the first made it
    terms: dict[str, Tensor] = {}
    for (log_state, at_state), (log_new, at_new) in product(states, proposals):
        log_ratio = at_new - at_state[:, None]
        mass = (log_state[:, None] + log_new).exp() * (GRID[1] - GRID[0]) ** 2
        for name, of in {
            "rate": log_ratio.clamp(max=0.0).exp(),
            "jensen": log_ratio.clamp(max=0.0),
            "symmetric": log_ratio,
        }.items():
            terms[name] = terms.get(name, torch.zeros(())) + (mass * of).sum()
    return terms


def at_the_target(num_particles: int, num_mixing: int, **options: str) -> SemiImplicitAcceptance:
    """With states that come from the target."""
    objective = SemiImplicitAcceptance(num_particles, num_mixing=num_mixing, **options)
    objective.chains.start(None, {"z": torch.randn(num_particles)})
    return objective


@pytest.mark.parametrize("num_mixing", [0, 1, 2])
def test_rate_and_bounds_are_those_of_enumeration(num_mixing: int) -> None:
    guide, count = Sides(), 100_000
    wanted = {name: value.detach() for name, value in exact(guide, num_mixing).items()}
    objective = at_the_target(count, num_mixing)
    states, proposals = objective.log_weights(target, guide).chunk(2)
    log_ratio = proposals - states
    below = log_ratio.clamp(max=0.0)
    found = {"rate": below.exp(), "jensen": below, "symmetric": log_ratio}
    for name, terms in found.items():
        error = terms.std() / count**0.5
        assert error < 0.01
        assert (terms.mean() - wanted[name]).abs() < 4 * error, name


def test_every_number_of_mixing_draws_bounds_the_rate_of_the_density_from_below() -> None:
    guide = Sides()
    with torch.no_grad():
        by_draws = [exact(guide, count) for count in (0, 1, 3)]
        known = exact(guide, None)
    rates = [found["rate"] for found in by_draws]
    assert rates[0] + 0.01 < rates[1] < rates[2] - 0.01 < known["rate"]
    for found in by_draws:
        assert found["jensen"] < found["rate"].log()
        assert 1 - (-found["symmetric"] / 2).sqrt() < found["rate"]
        assert found["symmetric"] < known["symmetric"]
    found = at_the_target(2000, 500).acceptance(target, guide)
    assert (found - known["rate"]).abs() < 4 * 0.5 / 2000**0.5, "J = 500 is as good as all"


@pytest.mark.parametrize("lower_bound", LOWER_BOUNDS)
def test_gradient_is_that_of_the_bound(lower_bound: str) -> None:
    guide, repeats = Sides(), 200
    parameters = [guide.loc, guide.log_scale]
    wanted = torch.stack(torch.autograd.grad(exact(guide, 1)[lower_bound], parameters))
    draws = []
    for _ in range(repeats):
        objective = at_the_target(1000, 1, lower_bound=lower_bound)
        loss = objective.differentiable_loss(target, guide)
        draws.append(-torch.stack(torch.autograd.grad(loss, parameters)))
    found = torch.stack(draws)
    error = found.std(0) / repeats**0.5
    assert (error < 0.03 * wanted.norm()).all()
    assert ((found.mean(0) - wanted).abs() < 4 * error).all()


def test_chains_come_to_the_target() -> None:
    objective = SemiImplicitAcceptance(5000, num_mixing=1, num_warmup=1)
    torch.manual_seed(0)
    for _ in range(40):
        objective.differentiable_loss(target, Sides())
    assert set(objective.chains.values) == {"z"}, "mixing draws are made anew"
    z = objective.chains.values["z"]
    assert z.mean().abs() < 4 * z.std() / 5000**0.5
    assert (z.square().mean() - 1).abs() < 4 * 2**0.5 / 5000**0.5


def test_without_mixing_variables_it_is_mh_acceptance() -> None:
    oracle = LinearGaussian(torch.randn(4, 2), torch.tensor([0.8, 1.0, 1.2, 0.9]))
    x, index = torch.randn(6, 4), torch.arange(6)
    values = []
    for kind in (MHAcceptance, SemiImplicitAcceptance):
        torch.manual_seed(1)
        values.append(kind(3, num_data=6).bound(oracle.model, oracle.exact_guide, x, index))
    torch.testing.assert_close(*values)


def test_data_have_chains_of_their_own() -> None:
    oracle = LinearGaussian(torch.randn(4, 2), torch.tensor([0.8, 1.0, 1.2, 0.9]))
    x = torch.randn(30, 2) @ oracle.loading.T + torch.randn(30, 4) * oracle.noise
    guide = SemiImplicitGuide(
        in_features=4, latent_features=2, hidden=(), noise_features=3, noise_hidden=(16,)
    )
    objective = SemiImplicitAcceptance(8, num_mixing=5, num_data=30)
    module = objective(oracle.model, guide)
    before = objective.acceptance(oracle.model, guide, x).mean()
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(60):
        rows = torch.randperm(30)[:15]
        optimizer.zero_grad()
        module(x[rows], rows).backward()
        optimizer.step()
    assert objective.chains.values["z"].shape == (8, 30, 2)
    assert objective.acceptance(oracle.model, guide, x).mean() > before + 0.1


def test_what_it_cannot_train_is_named() -> None:
    def mixed_prior() -> None:
        zeta = pyro.sample("zeta", dist.Normal(torch.zeros(()), 0.8), infer=MIXING)
        pyro.sample("z", dist.Normal(zeta, 0.6))

    with pytest.raises(ProgramError, match="'zeta': expected a model whose prior has a density"):
        SemiImplicitAcceptance(4).differentiable_loss(mixed_prior, Sides())

    def summed() -> None:
        pyro.sample("class", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        target()

    for options in ({}, {"max_plate_nesting": 0}):
        with pytest.raises(ProgramError, match="'class': expected a site that the guide draws"):
            SemiImplicitAcceptance(4, **options).differentiable_loss(summed, Sides())
    with pytest.raises(ProgramError, match="num_mixing: expected an integer >= 0"):
        SemiImplicitAcceptance(num_mixing=-1)

    class Rounded(Sides):
        def forward(self) -> None:
            psi = pyro.sample("psi", dist.Normal(self.loc, 1.0), infer=MIXING)
            pyro.sample("z", dist.Normal(psi.round(), 1.0))

    with pytest.raises(ProgramError, match="'psi': expected a differentiable step"):
        SemiImplicitAcceptance(4).differentiable_loss(target, Rounded())
