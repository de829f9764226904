"""Three critics: each learns its own log-ratio, and moves what it is meant to move."""

from copy import deepcopy

import pytest
import torch
from explained import explained
from linear_pairs import (
    DATA_VARIANCE,
    GRID,
    ExactRatio,
    Guide,
    Model,
    Quadratic,
    data,
    divergence,
    mean_gradient,
)
from pyro.distributions import Normal
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import PAGAN

pytestmark = pytest.mark.usefixtures("float64")

BLUR = 0.7


def augment(x: Tensor) -> Tensor:
    return x + BLUR * torch.randn_like(x)


class Mute(nn.Module):
    def forward(self, draws: Tensor, context: Tensor | None) -> Tensor:
        return 0.0 * draws[..., 0]


def log_conditionals(model: Model, guide: Guide, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(y | x) of a reconstruction and log r(y | x) of an augmentation."""
    scale = (model.slope * guide.log_scale.exp()).square() + (2 * model.log_scale).exp()
    made = Normal(model.slope * guide.slope * x, scale.sqrt())
    return made.log_prob(y), Normal(x, BLUR).log_prob(y)


def exact(model: Model, guide: Guide) -> ExactRatio:
    model, guide = deepcopy(model), deepcopy(guide)

    def log_ratio(y: Tensor, x: Tensor) -> Tensor:
        log_p, log_r = log_conditionals(model, guide, y, x)
        return log_p - log_r

    return ExactRatio(log_ratio)


def of_pairs(pairs: nn.Module, **options: object) -> PAGAN:
    return PAGAN(Mute(), Mute(), pairs, augment, 2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "of_programs"),
    [("non_saturating", "mixture to b"), ("jensen_shannon", "jensen_shannon"), ("kl", "kl")],
)
def test_gradient_of_reconstructions(name: str, of_programs: str) -> None:
    """That of the expected divergence of p(y | x) to r(y | x), for encoder and generator."""
    model, guide = Model(), Guide()
    of_data = Normal(0.0, DATA_VARIANCE**0.5).log_prob(GRID)
    log_p, log_r = log_conditionals(model, guide, GRID[:, None], GRID)
    parameters = [*guide.parameters(), *model.parameters()]
    exactly = divergence(of_programs, log_p + of_data, log_r + of_data)
    expected = torch.stack(torch.autograd.grad(exactly, parameters))
    objective = of_pairs(exact(model, guide), divergence=name, num_discriminator_steps=0)

    def loss() -> Tensor:
        return objective.differentiable_loss(model, guide, data(10_000)) / 10_000

    found, error = mean_gradient(loss, parameters)
    assert ((found - expected).abs() < 4.5 * error).all(), (found, expected, error)
    assert (expected.abs() > 10 * error).all()


def test_critic_of_pairs_learns_the_ratio_of_conditionals() -> None:
    model, guide = Model(), Guide()
    objective = of_pairs(Quadratic(), discriminator_lr=lambda step: 0.05 * (1 - step / 300))
    for _ in range(300):
        objective.differentiable_loss(model, guide, data(1000))
    y, x = torch.randn(1000, 1), data(1000)
    found, expected = objective.critics["pairs"].discriminator(y, x), exact(model, guide)(y, x)
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.99
    assert (found - expected).abs().mean() < 0.15  # over seeds 0.055


class Sum(nn.Module):
    """A critic that says the draws themselves."""

    def forward(self, draws: Tensor, context: Tensor | None) -> Tensor:
        return draws[..., 0]


@pytest.mark.parametrize(("name", "moved"), [("latents", "guide"), ("data", "model")])
def test_who_is_moved_by_whom(name: str, moved: str) -> None:
    """Latents are the guide's matter, dreams the model's."""
    critics = {"latents": Mute(), "data": Mute(), name: Sum()}
    objective = PAGAN(
        critics["latents"], critics["data"], Mute(), augment, num_discriminator_steps=0
    )
    programs = {"model": Model(), "guide": Guide()}
    objective.differentiable_loss(programs["model"], programs["guide"], data(9)).backward()
    for which, program in programs.items():
        gradients = [p.grad for p in program.parameters()]
        assert any(g is not None and bool(g.any()) for g in gradients) == (which == moved)


def test_value_is_minus_the_three_divergences() -> None:
    """Here: KL of latents, of dreams, and of reconstructions, each by quadrature."""
    model, guide = Model(), Guide()
    scale_z = ((guide.slope**2) * DATA_VARIANCE + (2 * guide.log_scale).exp()).sqrt().item()
    scale_x = (model.slope**2 + (2 * model.log_scale).exp()).sqrt().item()

    def ratio(a: float, b: float) -> nn.Module:
        exactly = ExactRatio(lambda d, _: Normal(0.0, a).log_prob(d) - Normal(0.0, b).log_prob(d))
        return _Alone(exactly)

    objective = PAGAN(
        ratio(scale_z, 1.0), ratio(scale_x, DATA_VARIANCE**0.5), exact(model, guide), augment, 4
    )
    found = objective.bound(model, guide, data(50_000))
    of_data = Normal(0.0, DATA_VARIANCE**0.5).log_prob(GRID)
    log_p, log_r = log_conditionals(model, guide, GRID[:, None], GRID)
    expected = (
        divergence("kl", log_p + of_data, log_r + of_data)
        + torch.distributions.kl_divergence(Normal(0.0, scale_z), Normal(0.0, 1.0))
        + torch.distributions.kl_divergence(Normal(0.0, scale_x), Normal(0.0, DATA_VARIANCE**0.5))
    )
    assert abs(found.mean() + expected) < 4.5 * found.std() / len(found) ** 0.5


class _Alone(nn.Module):
    """A ratio of draws alone."""

    def __init__(self, ratio: nn.Module) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, draws: Tensor, context: None) -> Tensor:
        assert context is None
        return self.ratio(draws, draws)


def test_networks_train() -> None:
    model = VAE(4, 2, (8,), "gaussian")
    guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
    critics = Discriminator(2), Discriminator(4), Discriminator(4, 4)
    objective = PAGAN(*(c.double() for c in critics), augment)
    for _ in range(2):
        objective.differentiable_loss(model, guide, torch.randn(5, 4)).backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_binary_data_cannot_be_moved() -> None:
    guide = AmortizedNormal(in_features=4, latent_features=2)
    with explained(ProgramError, "site 'x'", "reparameterised", "no rsample", "Gaussian"):
        of_pairs(Mute()).loss(VAE(4, 2), guide, torch.zeros(3, 4))
