"""IWHVI against exact answers: any reverse program bounds, the exact one leaves no gap."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import LOG_P, MAX_Z, MIXING, X, mean_and_error
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, ProgramError
from pyro_lvm.objectives import IWHVI, SIVI

pytestmark = pytest.mark.usefixtures("float64")


def guide(x: Tensor) -> None:
    """The exact posterior, by two levels of mixing."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x / 2, 0.3), infer=MIXING)
        psi = pyro.sample("psi", dist.Normal(top, 0.4), infer=MIXING)
        pyro.sample("z", dist.Normal(psi, 0.5))


def exact(x: Tensor, z: Tensor) -> None:
    """q(top, psi | z, x): top has precision 1/.09 + 1/.41, then psi 1/.16 + 1/.25."""
    with pyro.plate("data", len(x)):
        precision = 1 / 0.09 + 1 / 0.41
        loc = (x / 2 / 0.09 + z / 0.41) / precision
        top = pyro.sample("top", dist.Normal(loc, precision**-0.5))
        precision = 1 / 0.16 + 1 / 0.25
        loc = (top / 0.16 + z / 0.25) / precision
        pyro.sample("psi", dist.Normal(loc, precision**-0.5))


def off(x: Tensor, z: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.3 * z + 0.2, 0.4))
        pyro.sample("psi", dist.Normal(0.5 * z + 0.5 * top, 0.5))


def forward(x: Tensor, z: Tensor) -> None:
    """The guide's own law."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x / 2, 0.3))
        pyro.sample("psi", dist.Normal(top, 0.4))


@pytest.mark.parametrize("num_mixing", [0, 1, 5])
def test_exact_reverse_program_leaves_no_gap(num_mixing: int) -> None:
    bound = IWHVI(3, num_mixing=num_mixing, reverse=exact).bound(model, guide, X.expand(7))
    torch.testing.assert_close(bound, LOG_P.expand(7), atol=1e-9, rtol=0)  # rounding


def test_any_reverse_program_bounds_and_closes_in() -> None:
    x, values = X.expand(20_000), []
    for count in (0, 1, 5, 25):
        value, error = mean_and_error(IWHVI(num_mixing=count, reverse=off).bound(model, guide, x))
        assert value < LOG_P + MAX_Z * error
        assert error < 0.01
        values.append(value)
    assert values[0] < values[1] < values[2] < values[3]
    assert LOG_P - values[3] < 0.1 * (LOG_P - values[0])


def test_every_weight_has_mean_p_of_x() -> None:
    objective = IWHVI(3, num_mixing=2, reverse=off)
    weights = (objective.log_weights(model, guide, X.expand(50_000)) - LOG_P).exp()
    mean, error = mean_and_error(weights.mean(0))
    assert error < 0.01
    assert abs(mean - 1) < MAX_Z * error


def test_guides_own_law_is_sivi() -> None:
    x = X.expand(50_000)
    ours, error = mean_and_error(IWHVI(num_mixing=3, reverse=forward).bound(model, guide, x))
    theirs, other = mean_and_error(SIVI(num_mixing=3).bound(model, guide, x))
    assert abs(ours - theirs) < MAX_Z * (error**2 + other**2) ** 0.5
    assert error < 0.01


class Guide(PyroModule):
    """Learns its reverse program beside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.reverse = Reverse()

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            psi = pyro.sample("psi", dist.Normal(self.loc + x / 2, 0.6), infer=MIXING)
            pyro.sample("z", dist.Normal(psi, 0.4))


class Reverse(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, z: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = self.weight[0] * x + self.weight[1] * z
            pyro.sample("psi", dist.Normal(loc, self.weight[2].exp()))


@pytest.mark.parametrize("local", [False, True])
def test_reverse_program_is_trained_with_the_guide(local: bool) -> None:
    """To q(psi | z, x): precision 1/.36 + 1/.16, weights .5 * .16/.52 and .36/.52."""
    with pyro.settings.context(module_local_params=local):
        trained, x = Guide(), torch.randn(200)
        objective = IWHVI(num_mixing=1)
        if local:
            module = objective(model, trained)
            optimiser = torch.optim.Adam(module.parameters(), 0.02)
            for _ in range(400):
                optimiser.zero_grad()
                module(x).backward()
                optimiser.step()
        else:
            svi = pyro.infer.SVI(model, trained, pyro.optim.Adam({"lr": 0.02}), objective)
            for _ in range(400):
                svi.step(x)
    found = trained.reverse.weight.detach()
    expected = torch.tensor(
        [0.5 * 0.16 / 0.52, 0.36 / 0.52, 0.5 * torch.tensor(0.16 * 0.36 / 0.52).log()]
    )
    assert (found - expected).abs().max() < 0.1  # Adam's jitter at this rate is about 0.02


def test_no_reverse_program() -> None:
    with explained(ProgramError, "reverse", "draws the mixing variables", "none", "SIVI"):
        IWHVI().loss(model, guide, X)


def test_reverse_program_of_other_sites() -> None:
    def partial(x: Tensor, z: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("psi", dist.Normal(z, 1.0))

    with explained(ProgramError, "reverse program", "['psi', 'top']", "['psi']", "every mixing"):
        IWHVI(reverse=partial).loss(model, guide, X)


def test_reverse_module_beside_the_guide() -> None:
    with explained(ParameterError, "reverse", "submodule of the guide", "its own", "guide.reverse"):
        IWHVI(reverse=Reverse())(model, guide)
