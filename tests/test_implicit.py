"""Implicit sites, which can be drawn from and have no density; such a prior."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from implicit_parts import sites_of, small
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, ProgramError
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.testing import check_model

pytestmark = pytest.mark.usefixtures("float64")
TRY = "Use AVB or IWAVB (a discriminator of data and latents), AAE or IWAAE (of latents)"


# The distribution.


def standard(*shape: int) -> Implicit:
    return Implicit(lambda left: torch.randn(left + shape), event_dim=1, shape=shape)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (4, 5, 2)])
def test_shapes_and_expansion(shape: tuple[int, ...]) -> None:
    z = standard(*shape)
    assert z.batch_shape + z.event_shape == shape
    assert z.event_shape == (2,)
    assert z.rsample((7,)).shape == (7, *shape)
    wider = z.expand((3, *z.batch_shape))
    assert wider.rsample((7,)).shape == (7, 3, *shape)
    draws = wider.rsample()
    assert (draws[0] != draws[1]).all()


def test_shape_of_one_draw_is_found() -> None:
    z = Implicit(lambda left: torch.rand((*left, 4, 5, 2)), event_dim=2)
    assert (z.batch_shape, z.event_shape) == ((4,), (5, 2))


def test_draws_have_gradients() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    z = Implicit(lambda left: scale * torch.ones(left), event_dim=0)
    assert torch.autograd.grad(z.rsample((3,)).sum(), scale) == (torch.tensor(3.0),)


def test_sampler_of_another_shape() -> None:
    def sampler(sample_shape: torch.Size) -> Tensor:
        return torch.randn(5, 2)

    z = Implicit(sampler, event_dim=1, shape=(5, 2))
    with explained(
        ProgramError,
        "sampler of an Implicit distribution",
        "draws of shape (3, 5, 2) for sample shape (3,)",
        "(5, 2)",
        "sample_shape + (*batch, ...)",
    ):
        z.rsample((3,))


def test_event_dims_that_are_not_there() -> None:
    with explained(ProgramError, "event_dim", "from 0 to 2", "3", "that are no plate"):
        Implicit(lambda left: torch.zeros(left), event_dim=3, shape=(5, 2))


def test_no_density() -> None:
    found = "it can be drawn from, and has no density"
    with explained(DensityError, "an Implicit distribution", "a density", found, TRY):
        standard(2).log_prob(torch.zeros(2))
    model, guide = VAE(6, 2, hidden=(8,)), small()
    for objective in (ELBO(), IWAE(2), IWAE(2, "dreg"), ELBO(2, "score")):
        with explained(DensityError, "site 'z'", "for this objective", found, TRY):
            objective.loss(model, guide, torch.rand(4, 6).round())


# As a prior.


class Prior(PyroModule):
    """A prior known by its draws: a network of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.push, self.decode = nn.Linear(3, 2), nn.Linear(2, 4)

    def draw(self, sample_shape: torch.Size) -> Tensor:
        pushed: Tensor = self.push(torch.randn((*sample_shape, 3))).tanh()
        return pushed

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", Implicit(self.draw, event_dim=1))
            drawn: Tensor = pyro.sample("x", dist.Normal(self.decode(z), 1.0).to_event(1), obs=x)
        return drawn


def test_prior_keeps_the_contract() -> None:
    check_model(Prior())


def test_prior_in_plates_of_a_model() -> None:
    model = Prior()
    assert model(size=7).shape == (7, 4)
    sites = sites_of(model, torch.zeros(5, 4))
    assert sites["z"].value.shape == (3, 1, 5, 2)
    assert (sites["z"].value[0] != sites["z"].value[1]).all()
    predicted = pyro.infer.Predictive(model, num_samples=6)(size=5)
    assert predicted["z"].shape == (6, 5, 2)


def test_nested_plates_and_a_mask() -> None:
    mask = torch.tensor([True, False, True, True, False])

    def model() -> Tensor:
        rows, columns = pyro.plate("rows", 4, dim=-2), pyro.plate("columns", 5, dim=-1)
        with rows, columns, poutine.mask(mask=mask):
            z: Tensor = pyro.sample("z", Implicit(lambda left: torch.randn(left)))
        return z

    assert model().shape == (4, 5)
    assert len(model().unique()) == 20
    site = sites_of(model)["z"]
    assert site.value.shape == (3, 4, 5)
    assert torch.equal(site.mask, mask)
