"""``poutine.scale`` around latent sites, the KL annealing idiom: right, or refused."""

from typing import Any

import adversarial_programs
import pyro
import pyro.distributions as dist
import pytest
import torch
from adversarial_programs import Exact, Guide
from conjugate_programs import model as conjugate
from explained import explained
from mixing_programs import wide
from pyro import poutine
from pyro.poutine.messenger import Messenger
from small_programs import Program, one_level, two_level
from standard_errors import assert_mean
from test_gradients import MAX_ERROR, exact_gradient, sampled_gradients
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import (
    CUBO,
    DSIVI,
    ELBO,
    IWAE,
    IWAVB,
    MIWAE,
    PIWAE,
    SIVI,
    TVO,
    UIVI,
    AlphaDivergence,
    Renyi,
    ReweightedWakeSleep,
    WakeSleep,
)

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([1.3, -0.5], dtype=torch.float64)


class ScaledLatents(Messenger):
    """``poutine.scale`` around each site that is not observed."""

    def __init__(self, factor: float | Tensor) -> None:
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.factor


def annealed(program: Program, factor: float | Tensor) -> Program:
    program.model = ScaledLatents(factor)(program.model)
    program.guide = ScaledLatents(factor)(program.guide)
    return program


@pytest.mark.parametrize("factor", [0.3, 1.5, torch.tensor(0.3, dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("make_program", [one_level, two_level], ids=lambda p: p.__name__)
def test_one_factor_is_the_beta_of_the_loss(make_program, factor) -> None:
    program, objective = annealed(make_program(), factor), IWAE(5, "dreg")
    exact = exact_gradient(make_program(), objective, beta=float(factor))
    assert_mean(sampled_gradients(program, objective), exact, max_error=MAX_ERROR)


def test_a_factor_of_each_datum() -> None:
    """Two data with factors of their own: the sum of two programs with one each."""
    factors = torch.tensor([0.3, 1.0], dtype=torch.float64)
    program, objective = annealed(one_level(), factors.repeat(500)), Renyi(3, "dreg")
    exact = [exact_gradient(one_level(), objective, beta=f) for f in factors.tolist()]
    assert_mean(sampled_gradients(program, objective), sum(exact) / 2, max_error=MAX_ERROR)


def model(x: Tensor, factor: float = 0.5) -> None:
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=factor):
            y = pyro.sample("y", dist.Normal(torch.zeros(()), 1.0))
        z = pyro.sample("z", dist.Normal(y, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x: Tensor, factor: float = 0.5) -> None:
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=factor):
            y = pyro.sample("y", dist.Normal(pyro.param("loc", torch.zeros(())) * x, 1.0))
        pyro.sample("z", dist.Normal((x + y) / 2, 1.0))


def penalised(x: Tensor, factor: float) -> None:
    guide(x, factor)
    with poutine.scale(scale=0.5):
        pyro.factor("penalty", -(pyro.param("loc") ** 2), has_rsample=True)


def test_what_is_no_density_has_any_factor() -> None:
    assert IWAE(2, "dreg").differentiable_loss(model, penalised, X, 1.0).isfinite()


@pytest.mark.parametrize("factor", [0.5, torch.tensor([0.5, 1.0], dtype=torch.float64)], ids=str)
def test_factors_of_their_own_are_refused(factor) -> None:
    for objective in (IWAE(2), IWAE(1, "dreg"), ELBO(3, "dreg"), ELBO(3, "stl"), IWAE(3, "score")):
        assert objective.differentiable_loss(model, guide, X, factor).isfinite()
    for objective in (IWAE(2, "dreg"), MIWAE(4, "dreg", num_groups=2, chunk_particles=2)):
        assert objective.bound(model, guide, X, factor).isfinite().all()
        with explained(
            ProgramError, "poutine.scale", "'dreg'", "of their own", "gradient='reparam'"
        ):
            objective.differentiable_loss(model, guide, X, factor)


WEIGHTED = [ReweightedWakeSleep(2), AlphaDivergence(2, "dreg"), CUBO(2), PIWAE(2, "dreg"), TVO(2)]


@pytest.mark.parametrize("objective", WEIGHTED, ids=lambda o: type(o).__name__)
def test_directions_of_the_guide_take_whole_densities(objective) -> None:
    all_scaled = poutine.scale(guide, 0.5)
    for factor, scaled, found in (
        (0.5, guide, "of their own"),
        (1.0, all_scaled, "a factor of 0.5"),
    ):
        with explained(ProgramError, "poutine.scale", "in full", found, "beta="):
            objective.differentiable_loss(model, scaled, X, factor)
    everything = poutine.scale(model, 0.5), all_scaled
    assert objective.differentiable_loss(*everything, X, 1.0).isfinite()
    assert WakeSleep(2).differentiable_loss(model, guide, X).isfinite()


@pytest.mark.parametrize("objective", [SIVI(2), DSIVI(2), UIVI(2)], ids=lambda o: type(o).__name__)
def test_mixtures_take_whole_densities(objective) -> None:
    programs = conjugate, wide
    with explained(ProgramError, "'z'", "in full, to average", "a factor of 0.3", "beta="):
        objective.differentiable_loss(*(ScaledLatents(0.3)(p) for p in programs), X)
    weights = torch.tensor([0.3, 1.0], dtype=torch.float64)
    for factor in (0.3, weights):
        everything = (poutine.scale(p, factor) for p in programs)
        assert objective.differentiable_loss(*everything, X).isfinite()


def test_a_ratio_has_the_factor_of_its_sites() -> None:
    def loss(model: Any, guide: Any, beta: float) -> float:
        pyro.set_rng_seed(1)
        objective = IWAVB(Exact(), 3, num_discriminator_steps=0, beta=beta)
        return objective.loss(model, guide, adversarial_programs.X)

    model, guide = adversarial_programs.model, Guide()
    scaled = loss(ScaledLatents(0.3)(model), ScaledLatents(0.3)(guide), 1.0)
    assert scaled == pytest.approx(loss(model, guide, 0.3))
    assert scaled != pytest.approx(loss(model, guide, 1.0))
    with explained(ProgramError, "sites ['z']", "one ratio", "of their own", "all of them alike"):
        loss(model, ScaledLatents(0.3)(guide), 1.0)
    mask = poutine.mask(mask=torch.tensor(False))
    with explained(ProgramError, "sites ['z']", "no poutine.mask", "around 'z'", "data's site"):
        loss(mask(model), mask(guide), 1.0)
