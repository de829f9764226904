"""What variational Gibbs inference brought: the flow of the data, mixtures of Normals, cells."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.distributions import Cells, NormalMixture
from pyro_lvm.models import NormalizingFlow
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.testing.draws import check_draws
from pyro_lvm.tracing import Recorder, record

pytestmark = pytest.mark.usefixtures("float64")


# A flow of the data.


@pytest.mark.parametrize("family", ["nsf", "maf"])
def test_a_flow_sums_to_one(family: str) -> None:
    model = NormalizingFlow(2, family, num_transforms=2, hidden=(8,))
    line = torch.linspace(-9, 9, 181)
    total = model.log_evidence(torch.cartesian_prod(line, line)).exp().sum() * 0.1**2
    assert abs(total.item() - 1) < 1e-3


@pytest.mark.parametrize("objective", [ELBO(3), IWAE(3)], ids=repr)
def test_every_bound_of_a_flow_is_its_density(objective: ELBO | IWAE) -> None:
    model = NormalizingFlow(3, hidden=(8,), num_data=12)
    x = model(size=4).detach()
    exact = model.log_evidence(x)
    torch.testing.assert_close(objective.bound(model, lambda x: None, x), exact)
    loss = objective.loss(model, lambda x: None, x)
    assert loss == pytest.approx(-3 * exact.sum().item())


def test_draws_of_a_flow_are_its_density() -> None:
    model = NormalizingFlow(2, "maf", num_transforms=2, hidden=(8,))
    (site,) = record(lambda: model(size=3), (), {}, Recorder(None, 1)).sites.values()
    with torch.no_grad():
        check_draws(site, 4000)


# Mixtures of Normals.

LOGITS, LOC, SCALE = [0.3, -0.2, 0.0], [-1.0, 2.0, 0.4], [0.5, 1.5, 0.2]


def parameters() -> list[Tensor]:
    return [torch.tensor(each, requires_grad=True) for each in (LOGITS, LOC, SCALE)]


def test_a_mixture_is_pyros() -> None:
    ours = NormalMixture(*parameters())
    theirs = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.tensor(LOGITS)),
        dist.Normal(torch.tensor(LOC), torch.tensor(SCALE)),
    )
    value = torch.linspace(-9, 9, 19)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


def test_the_path_derivative_is_exact_in_every_parameter() -> None:
    """Of E[z^3 / 10 + sin z], against quadrature; each within six standard errors."""

    def test(z: Tensor) -> Tensor:
        return z**3 / 10 + z.sin()

    line = torch.linspace(-15, 15, 100_001)
    given = parameters()
    exact = (test(line) * NormalMixture(*given).log_prob(line).exp()).sum() * (line[1] - line[0])
    wanted = torch.cat(torch.autograd.grad(exact, given))
    found = []
    for _ in range(50):
        given = parameters()
        mean = test(NormalMixture(*given).rsample((4000,))).mean()
        found.append(torch.cat(torch.autograd.grad(mean, given)))
    gradients = torch.stack(found)
    error = gradients.std(0) / 50**0.5
    assert ((gradients.mean(0) - wanted).abs() < 6 * error).all()
    assert (error < 0.05 * wanted.abs().max()).all()


def test_one_component_is_a_normal() -> None:
    loc, scale = (torch.tensor([each], requires_grad=True) for each in (0.3, 1.7))
    draw = NormalMixture(torch.zeros(1), loc, scale).rsample((5,))
    slopes = torch.autograd.grad(draw.sum(), [loc, scale])
    torch.testing.assert_close(slopes[0], torch.tensor([5.0]))
    torch.testing.assert_close(slopes[1], ((draw - loc) / scale).sum().reshape(1))


def test_far_tails_keep_a_finite_derivative() -> None:
    """Single precision, a draw eight standard deviations out on either side."""
    for value in (-5.0, 14.0):
        logits, loc, scale = (each.float().detach().requires_grad_() for each in parameters())
        q = NormalMixture(logits, loc, scale)
        q._draw = lambda shape, value=value: torch.full(shape, value)  # type: ignore[method-assign,misc]
        slopes = torch.autograd.grad(q.rsample((1,)).sum(), [logits, loc, scale])
        assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_a_mixture_expands_over_particles() -> None:
    with pyro.plate("data", 4, dim=-1):
        q = NormalMixture(*parameters())
        z = pyro.sample("z", q)
    assert z.shape == (4,)
    assert q.expand((7, 4)).rsample().shape == (7, 4)


# Cells.


def test_cells_are_of_two_kinds() -> None:
    which = torch.tensor([True, False, True])
    logits, loc = torch.randn(3, 4), torch.randn(3, requires_grad=True)
    cells = Cells(dist.Normal(loc, 1.0), dist.Categorical(logits=logits), which)
    value = torch.tensor([3.0, -0.4, 0.0])
    score = cells.log_prob(value)
    torch.testing.assert_close(score[1], dist.Normal(loc, 1.0).log_prob(value)[1])
    torch.testing.assert_close(score[[0, 2]], logits.log_softmax(-1)[[0, 2], [3, 0]])
    draw = cells.rsample((500,))
    assert set(draw[:, 0].tolist()) <= {0.0, 1.0, 2.0, 3.0}
    (slope,) = torch.autograd.grad(draw.sum(), loc)
    assert slope.tolist() == [0.0, 500.0, 0.0]
    assert cells.expand((2, 3)).log_prob(value).shape == (2, 3)
