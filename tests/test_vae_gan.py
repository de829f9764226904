"""A VAE in the features of a discriminator: an ELBO where these are x, and a game for the model."""

import pickle
from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import ELBO, VAEGAN

pytestmark = pytest.mark.usefixtures("float64")


class Critic(nn.Module):
    """Features are x itself, logits their sum through a smooth step."""

    def features(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, context: None) -> Tensor:
        return x.tanh().sum(-1)


def programs() -> tuple[VAE, AmortizedNormal]:
    """With a noise scale of 1, as the features have."""
    return (
        VAE(4, 2, (8,), "gaussian"),
        AmortizedNormal(in_features=4, latent_features=2, hidden=(8,)),
    )


def gradients(loss: Tensor, *modules: nn.Module) -> dict[str, Tensor]:
    named = {n: p for m in modules for n, p in m.named_parameters() if "noise" not in n}
    found = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
    zeros = [torch.zeros_like(p) for p in named.values()]
    both = zip(named, found, zeros, strict=True)
    return {n: zero if g is None else g for n, g, zero in both}


def test_features_that_are_the_data_give_the_elbo() -> None:
    """Value and gradient, draw by draw, with the game left out."""
    model, guide = programs()
    x, found = torch.randn(6, 4), []
    for objective in (VAEGAN(Critic(), 3, critic_weight=0.0), ELBO(3)):
        torch.manual_seed(0)
        loss = objective.differentiable_loss(model, guide, x)
        found.append((loss.detach(), gradients(loss, model, guide)))
    torch.testing.assert_close(*found)


def test_game_moves_the_model_alone_and_by_the_known_gradient() -> None:
    """Minus log sigmoid of the logit's other sign, at dreams and copies, each half of the draws."""
    model, guide = programs()
    x, losses = torch.randn(6, 4), []
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        objective = VAEGAN(Critic(), critic_weight=weight, num_discriminator_steps=0)
        losses.append(objective.differentiable_loss(model, guide, x))
    without, found = (gradients(loss, model, guide) for loss in losses)

    torch.manual_seed(0)
    z = objective.particles(model, guide, x).values["z"]
    torch.manual_seed(0)
    torch.randn(z.shape)  # the guide's noise, then the dream's
    dreamt = torch.randn(z.shape)  # one a datum, and so is the copy
    logits = Critic()(model.decode(torch.cat([dreamt, z])).mean, None)
    game = gradients(3.0 * softplus(logits).mean(0).sum(), model)
    for name, gradient in found.items():
        expected = without[name] + game.get(name, torch.zeros(()))
        torch.testing.assert_close(gradient, expected, msg=name)


def test_discriminator_tells_made_from_data() -> None:
    """Its logit rises on what the model makes; its features are those of the likelihood."""
    model, guide = programs()
    objective = VAEGAN(Discriminator(4, hidden=(8,)).double(), 4, discriminator_lr=0.01)
    x = 3.0 + torch.randn(50, 4)
    for _ in range(100):
        objective.differentiable_loss(model, guide, x)
    critic = objective.critics["only"].discriminator
    assert critic(model.decode(torch.randn(50, 2)).mean, None).mean() > 1.0
    assert critic(x, None).mean() < -1.0


def test_any_likelihood_with_a_mean() -> None:
    """Here of binary data, whose draws no critic could move; and an observed label beside."""
    vae, guide = VAE(4, 2, (8,)), AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", vae.decode(z), obs=x)
            pyro.sample("y", dist.Normal(z[..., 0], 1.0), obs=x[:, 0])

    objective = VAEGAN(Critic(), data="x", features=lambda x: x.square())
    objective.differentiable_loss(model, guide, torch.ones(5, 4)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in vae.decoder.parameters())
    assert set(objective.particles(model, guide, torch.ones(5, 4)).parts) == {"x", "y", "z"}


def test_state_goes_on_exactly() -> None:
    model, guide = programs()
    first = VAEGAN(Discriminator(4, hidden=(8,)).double())
    first.differentiable_loss(model, guide, torch.randn(5, 4))
    second = VAEGAN(Discriminator(4, hidden=(8,)).double())
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    losses = []
    for objective in (first, second, deepcopy(second)):
        torch.manual_seed(1)
        losses.append(objective.differentiable_loss(model, guide, torch.randn(5, 4)).item())
    assert losses[0] == losses[1]


def test_guide_without_a_density() -> None:
    guide = ImplicitGuide(in_features=4, latent_features=2)
    with explained(DensityError, "site 'z'", "a density", "Implicit", "AVB"):
        VAEGAN(Critic()).loss(VAE(4, 2), guide, torch.zeros(3, 4))


def test_prior_without_a_density() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            by_draws = Implicit(lambda shape: torch.randn((*shape, 2)), 1, shape=(2,))
            z = pyro.sample("z", by_draws)
            pyro.sample("x", dist.Normal(z.repeat(1, 1, 2), 1.0).to_event(1), obs=x)

    guide = AmortizedNormal(in_features=4, latent_features=2)
    with explained(DensityError, "site 'z'", "a density", "Implicit", "AVB"):
        VAEGAN(Critic(), max_plate_nesting=1).loss(model, guide, torch.zeros(3, 4))
