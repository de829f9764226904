"""Programs with mixing variables that are refused, and arguments."""

from inspect import signature
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import LOG_P, MAX_Z, MIXING, X, gaussian, mean_and_error, mixed_prior
from torch import Tensor

from pyro_lvm import objectives
from pyro_lvm.errors import PlateError, ProgramError
from pyro_lvm.objectives import DSIVI, ELBO, IWHVI, SIVI

pytestmark = pytest.mark.usefixtures("float64")


def test_elbo_refuses_and_pyro_does_not() -> None:
    """Pyro's ELBO adds the entropy of the noise: no bound, and it moves with its scale."""

    def noisy(scale: float):
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                noise = pyro.sample("noise", dist.Normal(torch.zeros(()), scale), infer=MIXING)
                pyro.sample("z", dist.Normal(x / 2 + 0.5 * noise / scale, 0.5))

        return guide

    x = X.expand(20_000)
    wrong = -pyro.infer.Trace_ELBO().loss(model, noisy(1.0), x) / len(x)
    moved = -pyro.infer.Trace_ELBO().loss(model, noisy(100.0), x) / len(x)
    assert wrong > LOG_P.item() + 0.5
    assert moved - wrong == pytest.approx(log(100), abs=0.05)  # their standard errors are 0.01
    right, error = mean_and_error(SIVI(num_mixing=1000).bound(model, noisy(100.0), X.expand(200)))
    assert abs(right - LOG_P.item()) < MAX_Z * error + 1e-3  # the gap at J = 1000
    with explained(ProgramError, "auxiliary site 'noise'", "density", "mixing variable", "SIVI"):
        ELBO().loss(model, noisy(1.0), x)
    with explained(ProgramError, "auxiliary site 'zeta'", "density", "mixing variable", "DSIVI"):
        ELBO().loss(mixed_prior, gaussian, x)


PLAIN = [
    objective
    for name in objectives.__all__
    if not (objective := getattr(objectives, name)).mixes
    and not any(p.default is p.empty for p in signature(objective).parameters.values())
]


@pytest.mark.parametrize("objective", PLAIN)
def test_no_other_objective_takes_mixing_variables(objective) -> None:
    """Those with a discriminator need no density, and are not among these."""
    with explained(ProgramError, "auxiliary site 'psi'", "density", "mixing variable", "SIVI"):
        objective(2).differentiable_loss(model, gaussian, X)
    with explained(ProgramError, "auxiliary site 'zeta'", "density", "mixing variable", "DSIVI"):
        objective(2).loss(mixed_prior, gaussian, X)


def test_sivi_refuses_a_mixed_prior() -> None:
    with explained(ProgramError, "'zeta'", "prior has a density", "mixing variable", "DSIVI"):
        SIVI().loss(mixed_prior, gaussian, X)


def test_mixing_variable_of_both_programs() -> None:
    def both(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            zeta = pyro.sample("zeta", dist.Normal(torch.zeros(()), 0.8), infer=MIXING)
            pyro.sample("z", dist.Normal(zeta, 0.6))

    with explained(ProgramError, "'zeta'", "one program", "both programs have", "as the others"):
        DSIVI().loss(mixed_prior, both, X)


def test_mixing_variable_without_a_path() -> None:
    logit = torch.zeros((), requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(logits=logit), infer=MIXING)
            pyro.sample("z", dist.Normal(side, 0.7))

    with explained(ProgramError, "'side'", "a path", "Bernoulli, without rsample", "exact density"):
        SIVI().differentiable_loss(model, guide, X)


def test_latent_without_a_path() -> None:
    def counted(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(torch.ones(())))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 1.0), infer=MIXING)
            pyro.sample("z", dist.Poisson(psi.exp()))

    with explained(ProgramError, "site 'z'", "a reparameterised", "without rsample", "score"):
        SIVI().differentiable_loss(counted, guide, X)


@pytest.mark.parametrize("step", [torch.round, torch.detach], ids=lambda f: f.__name__)
def test_mixing_variable_whose_gradient_is_stopped(step) -> None:
    loc = torch.tensor(0.3, requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(loc, 2.0), infer=MIXING)
            pyro.sample("z", dist.Normal(step(psi) + loc, 0.5))

    with explained(ProgramError, "'psi'", "a differentiable step", "stops its gradient", "smooth"):
        SIVI(num_mixing=10).differentiable_loss(model, guide, X)


def test_delta_given_a_mixing_variable() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(x / 2, 0.5), infer=MIXING)
            pyro.sample("z", dist.Delta(psi.tanh()))

    with explained(ProgramError, "site 'z'", "conditional density", "a Delta", "AVB"):
        SIVI().loss(model, guide, X)


def test_mixing_outside_a_minibatch() -> None:
    def part(x: Tensor) -> None:
        with pyro.plate("data", 8, subsample=torch.arange(2)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 0.8), infer=MIXING)
        with pyro.plate("data", 8, subsample=torch.arange(2)):
            pyro.sample("z", dist.Normal(psi, 0.5))

    with explained(PlateError, "plate 'data'", "mixing variables", "join all its data", "inside"):
        SIVI().loss(part, guide, torch.zeros(2))


def test_shared_prior_draws_need_one_law() -> None:
    def conditional(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            zeta = pyro.sample("zeta", dist.Normal(x, 0.8), infer=MIXING)
            z = pyro.sample("z", dist.Normal(zeta, 0.6))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.1, 0.2])
    with explained(ProgramError, "'zeta'", "one law", "parameters of shape (1, 2)", "=False"):
        DSIVI().loss(conditional, gaussian, x)
    assert DSIVI(share_prior_mixing=False).bound(conditional, gaussian, x).isfinite().all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SIVI(num_mixing=-1), "num_mixing"),
        (lambda: SIVI(num_mixing=2.0), "num_mixing"),
        (lambda: DSIVI(num_prior_mixing=0), "num_prior_mixing"),
        (lambda: SIVI(gradient="stl"), "gradient"),
    ],
)
def test_arguments(make, name: str) -> None:
    with explained(ProgramError, name, "", "", "Pass"):
        make()


@pytest.mark.parametrize("objective", [SIVI, DSIVI, IWHVI])
def test_groups_of_unequal_size(objective) -> None:
    with explained(ProgramError, "num_groups", "divides num_particles=4", "3", "all draws"):
        objective(4, num_groups=3)
