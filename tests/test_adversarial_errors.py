"""What adversarial objectives refuse."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from adversarial_programs import Exact, Guide, Quadratic, X, model
from explained import explained
from torch import Tensor, nn

from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, ProgramError
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("objective", [ELBO(2), IWAE(3, "dreg")], ids=["ELBO", "IWAE"])
def test_implicit_site_without_a_ratio(objective: Objective) -> None:
    with explained(DensityError, "site 'z'", "a density", "Implicit", "AVB or IWAVB"):
        objective.loss(model, Guide(), X)


def test_discriminator_of_another_shape() -> None:
    class Column(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z

    with explained(ProgramError, "discriminator", "(2, 4)", "(2, 4, 1)", "without a last dim"):
        AVB(Column(), 2).loss(model, Guide(), X)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"contrast": "posterior"}, ("contrast", "'adaptive', 'prior'", "'posterior'", "'prior'")),
        ({"r1": -1.0}, ("r1", ">= 0", "-1.0", "r1=0.0")),
        ({"ema": 1.0}, ("ema", "not 1", "1.0", "ema=0.0")),
        ({"num_discriminator_steps": -1}, ("num_discriminator_steps", ">= 0", "-1", "=1")),
        ({"gradient": "reparam"}, ("gradient", "'stl'", "'reparam'", "'stl'")),
    ],
)
def test_bad_arguments(options: dict[str, Any], texts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *texts):
        AVB(Exact(), **options)


def test_unknown_site() -> None:
    with explained(ProgramError, "sites", "['z']", "'y'", "both programs"):
        AVB(Exact(), sites=["z", "y"]).loss(model, Guide(), X)


def test_adaptive_contrast_of_an_implicit_prior() -> None:
    def by_samples(x: Tensor) -> None:
        prior = Implicit(lambda shape: torch.randn((*shape, 1)), event_dim=1, shape=(1,))
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior)

    with explained(DensityError, "'z'", "a prior with a density", "Implicit", "contrast='prior'"):
        AVB(Exact(), contrast="adaptive").loss(by_samples, Guide(), X)


def test_a_prior_that_depends_on_another_latent() -> None:
    def deep(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    def both(x: Tensor) -> None:
        Guide()(x)
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    with explained(
        ProgramError, "site 'z'", "prior that depends on no other", "one that does", "adaptive"
    ):
        AVB(Quadratic()).loss(deep, both, X)
