"""A mixture with equal shares: its density, its path derivatives, and modes far apart."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.distributions import EqualMixture
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import MixtureWeights
from pyro_lvm.objectives import ELBO, IWAE, MHAcceptance

pytestmark = pytest.mark.usefixtures("float64")


def mixture(components: int = 3, size: int = 2) -> EqualMixture:
    return EqualMixture(torch.randn(components, size), 0.5 + torch.rand(components, size))


def pyros(q: EqualMixture) -> dist.MixtureSameFamily:
    normals = dist.Normal(q.loc, q.scale).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(len(q.loc))), normals)


def test_density_and_moments_are_those_of_the_mixture() -> None:
    q = mixture()
    z = torch.randn(4, 1, 2)
    torch.testing.assert_close(q.expand([5]).log_prob(z), pyros(q).expand([5]).log_prob(z))
    torch.testing.assert_close(q.expand([5]).mean, pyros(q).expand([5]).mean)
    torch.testing.assert_close(q.expand([5]).variance, pyros(q).expand([5]).variance)


def test_draws_have_the_gradient_of_an_expectation() -> None:
    """E |z|^2 is the mean of loc^2 + scale^2."""
    parameters = torch.stack([torch.randn(3, 2), 0.5 + torch.rand(3, 2)]).requires_grad_()
    draws = EqualMixture(*parameters).expand([1000]).rsample((50,))
    losses = draws.square().sum(-1).mean(-1)
    found = torch.stack([torch.autograd.grad(x, parameters, retain_graph=True)[0] for x in losses])
    error = found.std(0) / 50**0.5
    expected = 2 * parameters.detach() / 3
    assert ((found.mean(0) - expected).abs() < 4 * error).all()
    assert error.mean() < 0.1 * expected.abs().mean()


def target(loc: Tensor, scale: Tensor) -> None:
    pyro.sample("z", EqualMixture(loc, scale))


@pytest.mark.parametrize("objective", [ELBO(4, "stl"), IWAE(4, "dreg")], ids=["stl", "dreg"])
def test_bounds_and_path_gradients_vanish_at_the_exact_mixture(objective: ELBO | IWAE) -> None:
    guide = MixtureWeights({"z": torch.zeros(2)}, num_components=5)
    exact = guide.distributions()["z"]
    model = partial(target, exact.loc.detach(), exact.scale.detach())
    loss = objective(model, guide)()
    loss.backward()
    assert abs(loss.item()) < 1e-12
    for parameter in guide.parameters():
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter))


def test_first_draws_are_as_wide_as_asked_for() -> None:
    """Quasi-random places have the moments of a Normal up to 1/M or so."""
    guide = MixtureWeights({"a": torch.ones(3), "b": torch.zeros(1)}, num_components=64)
    moments = MixtureWeights.moments(guide)
    for name, middle in (("a", 1.0), ("b", 0.0)):
        torch.testing.assert_close(
            moments[name].mean, torch.full_like(moments[name].mean, middle), atol=0.05, rtol=0
        )
        torch.testing.assert_close(
            moments[name].scale, torch.ones_like(moments[name].scale), atol=0.05, rtol=0
        )


def test_acceptance_finds_two_far_modes() -> None:
    """Seeds 0 to 5 leave an acceptance of .66 to .81 and a share of .48 to .52."""
    model = partial(target, torch.tensor([[-5.0, 0.0], [5.0, 0.0]]), torch.full((2, 2), 0.5))
    guide = MixtureWeights({"z": torch.zeros(2)}, start_scale=4.0)
    objective = MHAcceptance(128)
    loss = objective(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), 0.03)
    for _ in range(400):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    right = (ELBO(4000).particles(model, guide).values["z"][..., 0] > 0).double().mean()
    assert objective.acceptance(model, guide).item() > 0.5
    assert 0.4 < right.item() < 0.6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixtureWeights({}), "start: expected a vector for each site"),
        (lambda: MixtureWeights(torch.zeros(2)), "got a Tensor"),  # type: ignore[arg-type]
        (lambda: MixtureWeights({"z": 0.0}), "got shapes .*a float"),  # type: ignore[dict-item]
        (lambda: MixtureWeights({"z": torch.zeros(2)}, num_components=0), "num_components"),
        (lambda: MixtureWeights({"z": torch.zeros(2)}, start_scale=0.0), "start_scale"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: partial[MixtureWeights], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()
