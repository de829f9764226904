"""UIVI: the gradient of the exact evidence lower bound of a semi-implicit guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import MAX_Z, MIXING, X
from standard_errors import assert_mean, mean_and_error
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import ELBO, SIVI, UIVI

pytestmark = pytest.mark.usefixtures("float64")


def make(leaves: Tensor):
    """q(z) = Normal(a x, exp(b)^2 + exp(c)^2 + (d exp(e))^2), by two mixing variables."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(leaves[0] * x, leaves[1].exp()), infer=MIXING)
            noise = dist.Normal(torch.zeros(2), leaves[4].exp()).to_event(1)
            eps = pyro.sample("eps", noise, infer=MIXING)
            pyro.sample("z", dist.Normal(psi + leaves[3] * eps[..., 0], leaves[2].exp()))

    return guide


def exact_elbo(leaves: Tensor) -> Tensor:
    loc = leaves[0] * X
    variance = (2 * leaves[1]).exp() + (2 * leaves[2]).exp() + (leaves[3] * leaves[4].exp()) ** 2
    joint = -0.5 * (loc**2 + variance) - 0.5 * ((X - loc) ** 2 + variance)
    return (joint + 0.5 * variance.log()).sum()  # up to a constant


LEAVES = [0.3, -1.0, -1.2, 0.4, 0.1]


def test_gradient_is_that_of_the_exact_bound() -> None:
    leaves = torch.tensor(LEAVES, requires_grad=True)
    (exact,) = torch.autograd.grad(exact_elbo(leaves), leaves)
    objective = UIVI(2, num_mixing=0, num_burn_in=15)  # long enough to forget the start
    for _ in range(10):  # until the step size is found
        objective.differentiable_loss(model, make(leaves), X.expand(100))
    found = []
    for _ in range(50):
        loss = objective.differentiable_loss(model, make(leaves), X.expand(500)) / 500
        found.append(torch.autograd.grad(-loss, leaves)[0])
    draws = torch.stack(found)
    assert_mean(draws, exact, MAX_Z, max_error=0.02)
    biased = SIVI(num_mixing=0)  # the same test tells the gradient at J = 0 from it
    loss = biased.differentiable_loss(model, make(leaves), X.expand(50_000)) / 50_000
    (other,) = torch.autograd.grad(-loss, leaves)
    assert ((other - exact).abs() > 2 * MAX_Z * mean_and_error(draws)[1]).any()


def test_value_is_sivi_and_moves_no_bound() -> None:
    leaves = torch.tensor(LEAVES, requires_grad=True)
    values = []
    for objective in (UIVI(num_mixing=7), SIVI(num_mixing=7)):
        pyro.set_rng_seed(0)
        values.append(objective.bound(model, make(leaves), X.expand(5)))
        pyro.set_rng_seed(0)
        loss = objective.differentiable_loss(model, make(leaves), X.expand(5))
        assert loss.item() == pytest.approx(-values[-1].sum().item())
    assert values[0].equal(values[1])


def test_step_size_finds_its_acceptance_and_is_resumed() -> None:
    leaves = torch.tensor(LEAVES, requires_grad=True)
    objective = UIVI(num_mixing=0)
    for _ in range(30):
        objective.differentiable_loss(model, make(leaves), X.expand(200))
    start = torch.tensor(0.1, dtype=torch.float64).log()
    assert objective.log_step_size > start + 0.5  # a tenth is small for scales of 0.3 to 1
    again = UIVI(num_mixing=0)
    again.load_state_dict(objective.state_dict())
    losses = []
    for each in (objective, again):
        pyro.set_rng_seed(1)
        losses.append(each.differentiable_loss(model, make(leaves), X.expand(5)))
    assert losses[0].equal(losses[1])
    assert objective.log_step_size.equal(again.log_step_size)


def test_warm_up_weighs_the_path_too() -> None:
    leaves = torch.tensor(LEAVES, requires_grad=True)
    gradients = []
    for beta in (0.0, 0.5, 1.0):
        pyro.set_rng_seed(2)
        loss = UIVI(num_mixing=3, beta=beta).differentiable_loss(model, make(leaves), X.expand(50))
        gradients.append(torch.autograd.grad(loss, leaves)[0])
    torch.testing.assert_close(gradients[1], (gradients[0] + gradients[2]) / 2)


def test_guide_without_mixing_is_the_elbo() -> None:
    loc = torch.tensor(0.3, requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.8))

    found = []
    for objective in (UIVI(3), ELBO(3)):
        pyro.set_rng_seed(0)
        loss = objective.differentiable_loss(model, guide, X.expand(4))
        found.append((loss, *torch.autograd.grad(loss, loc)))
    assert found[0] == found[1]


def test_mixing_variables_that_no_chain_can_move() -> None:
    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.LogNormal(torch.zeros(()), 1.0), infer=MIXING)
            pyro.sample("z", dist.Normal(psi, 0.5))

    def outside(x: Tensor) -> None:
        psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 1.0), infer=MIXING)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(psi, 0.5))

    with explained(ProgramError, "'psi'", "real mixing variables", "LogNormal", "SIVI"):
        UIVI().differentiable_loss(model, positive, X.expand(3))
    with explained(ProgramError, "'psi'", "in the plates", "shape (1, 1)", "SIVI"):
        UIVI().differentiable_loss(model, outside, X.expand(3))
