"""A linear causal model of latents: its exact density, and what interventions do."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.distributions.transforms import Spline
from torch import Tensor

from pyro_lvm.distributions import StructuralCausalPrior
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")

EDGES = [(0, 2), (1, 2), (2, 3), (0, 3)]
STRENGTH = torch.tensor([0.8, -0.5, 1.2, 0.3], dtype=torch.float64)
LOC = torch.tensor([0.1, 0.0, -1.0, 2.0], dtype=torch.float64)
SCALE = torch.tensor([1.0, 0.5, 2.0, 0.7], dtype=torch.float64)


def affine() -> StructuralCausalPrior:
    """Four causal latents in an order that is none of theirs, and two others."""
    prior = StructuralCausalPrior(6, EDGES, num_causal=4)
    with torch.no_grad():
        prior.strength.copy_(STRENGTH)
        prior.loc.copy_(LOC)
        prior.log_scale.copy_(SCALE.log())
    return prior


def by_hand(noise: Tensor, do: dict[int, float] | None = None) -> Tensor:
    """The structural equations, one after the other, ``(*, 4)``."""
    forced = {i: (v - LOC[i]) / SCALE[i] for i, v in (do or {}).items()}
    u: dict[int, Tensor] = {}
    for node in range(4):  # causes have lower numbers here
        causes = [s * u[c] for (c, e), s in zip(EDGES, STRENGTH, strict=True) if e == node]
        natural = noise[..., node] + sum(causes, torch.zeros(()))
        u[node] = natural.clone().fill_(forced[node]) if node in forced else natural
    return LOC + SCALE * torch.stack([u[node] for node in range(4)], -1)


def test_density_is_that_of_the_exact_covariance() -> None:
    linear = torch.linalg.inv(torch.eye(6) - affine().adjacency).T  # u = linear eps
    scale = torch.cat([SCALE, torch.ones(2)])
    covariance = scale[:, None] * (linear @ linear.T) * scale
    exact = dist.MultivariateNormal(torch.cat([LOC, torch.zeros(2)]), covariance)
    z = 3 * torch.randn(7, 5, 6)
    torch.testing.assert_close(affine()().log_prob(z), exact.log_prob(z))


def test_draws_follow_the_structural_equations() -> None:
    torch.manual_seed(1)
    found = affine()().rsample(torch.Size([50]))
    torch.manual_seed(1)
    noise = torch.randn(50, 6)
    torch.testing.assert_close(found[:, :4], by_hand(noise[:, :4]))
    torch.testing.assert_close(found[:, 4:], noise[:, 4:])


def test_density_through_a_nonlinear_link() -> None:
    """That of the noise over the Jacobian of all that makes z of it, by autograd."""
    prior = StructuralCausalPrior(3, [(0, 1)], num_causal=2, link=Spline(2))
    with torch.no_grad():
        prior.strength.fill_(0.9)
    made = prior()
    noise = torch.randn(3)

    def draw(noise: Tensor) -> Tensor:
        for transform in made.transforms:
            noise = transform(noise)
        return noise

    slope = torch.autograd.functional.jacobian(draw, noise).slogdet().logabsdet
    expected = dist.Normal(0.0, 1.0).log_prob(noise).sum() - slope
    torch.testing.assert_close(made.log_prob(draw(noise)), expected)


@pytest.mark.parametrize("do", [{0: 1.5}, {2: -1.0}, {1: 0.3, 2: 4.0}, {3: 0.0}])
def test_intervention_keeps_the_noise_of_the_others(do: dict[int, float]) -> None:
    noise = torch.randn(3, 5, 4)
    others = torch.randn(3, 5, 2)
    z = torch.cat([by_hand(noise), others], -1)
    before = z.clone()
    found = affine().do(z, do)  # type: ignore[arg-type]
    torch.testing.assert_close(found[..., :4], by_hand(noise, do))
    assert torch.equal(found[..., 4:], others)
    assert torch.equal(z, before)


def test_intervention_by_a_value_a_row_and_none() -> None:
    z = affine()().sample(torch.Size([4]))
    rows = torch.linspace(0.0, 1.0, 4)
    torch.testing.assert_close(affine().do(z, {0: rows})[:, 0], rows)
    torch.testing.assert_close(affine().do(z, {}), z)


def test_a_graph_in_any_order() -> None:
    """Edges from later latents to earlier ones are as good."""
    prior = StructuralCausalPrior(3, [(2, 0), (0, 1)])
    with torch.no_grad():
        prior.strength.copy_(torch.tensor([2.0, 3.0]))
    moved = prior.do(torch.zeros(3), {2: 1.0})
    torch.testing.assert_close(moved, torch.tensor([2.0, 6.0, 1.0]))


def test_is_learned_in_a_vae() -> None:
    prior = StructuralCausalPrior(2, [(0, 1)])
    model = VAE(4, 2, (8,), "gaussian", prior=prior)
    guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
    ELBO(3).differentiable_loss(model, guide, torch.randn(6, 4)).backward()
    assert model(size=7).shape == (7, 4)
    for parameter in prior.parameters():
        assert parameter.grad is not None
        assert parameter.grad.all()


def strength_error(prior: StructuralCausalPrior, z: Tensor) -> Tensor:
    """Standard errors of maximum likelihood, by the observed information."""
    parameters = dict(prior.named_parameters())
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]

    def loss(values: Tensor) -> Tensor:
        parts = dict(zip(names, values.split(sizes), strict=True))
        score: Tensor = torch.func.functional_call(prior, parts, ()).log_prob(z)
        return -score.sum()

    at = torch.cat([p.detach() for p in parameters.values()])
    covariance = torch.autograd.functional.hessian(loss, at).inverse()
    return covariance.diagonal()[: len(prior.strength)].sqrt()


@pytest.mark.slow
def test_strength_is_found_by_maximum_likelihood() -> None:
    """And an edge that the truth does not have gets none."""
    torch.manual_seed(0)
    z = affine()().sample(torch.Size([5000]))[:, :4]
    prior = StructuralCausalPrior(4, [*EDGES, (0, 1)])
    optimiser = torch.optim.LBFGS(prior.parameters(), max_iter=100)

    def closure() -> Any:
        optimiser.zero_grad()
        loss = -prior().log_prob(z).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = torch.cat([STRENGTH, torch.zeros(1)])
    error = strength_error(prior, z)
    assert ((prior.strength - expected).abs() < 4 * error).all()
    assert error.max() < 0.05


@pytest.mark.parametrize(
    ("edges", "texts"),
    [
        ([(0, 1), (1, 2), (2, 0)], ("edges", "without cycles", "[0, 1, 2]", "turn it round")),
        ([(1, 1)], ("edges", "without cycles", "[1]", "turn it round")),
        ([(0, 3)], ("edges", "from 0 to 2", "(0, 3)", "Number the latents from 0")),
    ],
)
def test_wrong_edges(edges: list[tuple[int, int]], texts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *texts):
        StructuralCausalPrior(4, edges, num_causal=3)
