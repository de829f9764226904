"""Adversarial objectives as their discriminators learn."""

import pickle
from copy import deepcopy
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from adversarial_programs import Guide, Quadratic, X, model
from pyro.infer import SVI
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.distributions import Implicit
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AAE, AVB, ELBO, IWAVB

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("cls", "contrast"),
    [
        (AVB, "prior"),
        (AVB, "adaptive"),
        pytest.param(IWAVB, "prior", marks=pytest.mark.slow),
        pytest.param(IWAVB, "adaptive", marks=pytest.mark.slow),
    ],
)
def test_training_finds_the_posterior(cls: type[AdversarialObjective], contrast: str) -> None:
    """The exact posterior of z given x is Normal(x / 2, 0.71): slope and scale are learned."""
    torch.manual_seed(0)
    x = torch.randn(400) * 2**0.5
    guide = Guide(slope=0.1, scale=1.0)
    objective = cls(Quadratic(), 4, contrast=contrast, num_discriminator_steps=3,
                    discriminator_lr=0.02)  # fmt: skip
    fit(model, guide, x, objective, batch_size=None, max_steps=600, lr=0.01,
        lr_scheduler="cosine", diagnostic_particles=0, progress=False)  # fmt: skip
    # Over seeds the game ends within half of these.
    assert abs(guide.slope.item() - 0.5) < 0.02
    assert abs(guide.log_scale.exp().item() - 0.5**0.5) < 0.05
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert abs((objective.bound(model, guide, x) - exact).mean()) < 0.1


def trained(objective: AdversarialObjective, steps: int) -> tuple[Tensor, Guide]:
    """Discriminator weights and guide after plain torch steps."""
    guide = Guide()
    module, optimiser = objective(model, guide), torch.optim.Adam(guide.parameters(), 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        module(X).backward()
        optimiser.step()
    return torch.cat([p.flatten() for p in objective.discriminator.parameters()]), guide


def test_every_entry_point_trains_the_discriminator() -> None:
    by_torch, _ = trained(AVB(Quadratic()), 3)
    assert by_torch.any()

    pyro.clear_param_store()
    objective, guide = AVB(Quadratic()), Guide()

    def announced(x: Tensor) -> None:
        pyro.module("guide", guide)(x)

    svi = SVI(model, announced, pyro.optim.Adam({"lr": 0.01}), objective)
    before = guide.slope.item()
    for _ in range(3):
        svi.step(X)
    assert guide.slope.item() != before
    assert all(parameter.any() for parameter in objective.discriminator.parameters())
    assert set(pyro.get_param_store()) == {"guide$$$slope", "guide$$$log_scale"}


def test_values_do_not_train_it() -> None:
    objective, guide = AVB(Quadratic(), 3), Guide()
    state = deepcopy(objective.ratio.state_dict())
    objective.loss(model, guide, X)
    objective.bound(model, guide, X)
    with torch.no_grad():
        objective.differentiable_loss(model, guide, X)
    assert str(objective.ratio.state_dict()) == str(state)


def test_values_leave_spectral_norm_alone() -> None:
    discriminator = Discriminator(1, context_features=1, spectral_norm=True).double()
    objective, guide = AVB(discriminator, 3, context=lambda x: x[:, None]), Guide()
    state = str(objective.ratio.state_dict())
    objective.bound(model, guide, X)
    assert str(objective.ratio.state_dict()) == state
    objective.differentiable_loss(model, guide, X)
    assert str(objective.ratio.state_dict()) != state


def test_programs_step_never_moves_it() -> None:
    """The programs' backward leaves no gradient in the discriminator."""
    objective, guide = AVB(Quadratic(), 3, num_discriminator_steps=0), Guide()
    objective.differentiable_loss(model, guide, X).backward()
    assert all(p.grad is None for p in objective.discriminator.parameters())
    assert not any(p.requires_grad for p in objective.discriminator.parameters())


def rates(objective: AdversarialObjective, steps: int) -> list[float]:
    """The rate of the discriminator's optimiser in each step."""
    own_step, found = objective.ratio.critic.own_step, []
    for _ in range(steps):
        objective.differentiable_loss(model, Guide(), X)
        found.append(own_step.optimizer.param_groups[0]["lr"])
    return found


def test_rate_of_the_discriminator_follows_its_schedule() -> None:
    """Whatever optimiser it has; goes on where a saved objective stood."""
    options = {
        "discriminator_lr": lambda step: 0.1 / (1 + step),
        "discriminator_optimizer": partial(torch.optim.SGD, lr=7.0),
    }
    objective = AVB(Quadratic(), **options)
    assert rates(objective, 3) == pytest.approx([0.1, 0.05, 0.1 / 3])
    resumed = AVB(Quadratic(), **options)
    resumed.load_state_dict(objective.state_dict())
    assert rates(resumed, 1) == pytest.approx([0.025])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.9},
        {"r1": 0.1, "num_discriminator_steps": 3},
        {"discriminator_lr": lambda step: 0.01 * 0.5**step},
    ],
)
def test_state_goes_on_exactly(options: dict[str, Any]) -> None:
    first = AVB(Quadratic(), 2, **options)
    _, guide = trained(first, 3)
    second = AVB(Quadratic(), 2, **options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    copy = deepcopy(first)
    losses = []
    for objective in (first, second, copy):
        torch.manual_seed(5)
        program = deepcopy(guide)
        losses.append([objective.differentiable_loss(model, program, X).item() for _ in range(3)])
    assert losses[0] == losses[1] == losses[2]


def test_average_of_the_weights_is_what_is_used() -> None:
    objective = AVB(Quadratic(), 2, ema=0.999)
    trained(objective, 3)
    frozen = AVB(Quadratic(), 2)
    torch.manual_seed(0)
    averaged = objective.bound(model, Guide(), X)
    torch.manual_seed(0)
    untrained = frozen.bound(model, Guide(), X)
    torch.manual_seed(0)
    objective.ratio.critic.average = objective.discriminator
    assert (averaged - untrained).abs().max() < 0.01
    assert (objective.bound(model, Guide(), X) - untrained).abs().max() > 1e-4


def test_aae_contrasts_the_aggregate() -> None:
    """q(z) over the data is the prior here, so T learns 0 and the value is E log p(x | z)."""
    torch.manual_seed(0)
    x = torch.randn(2000) * 2**0.5
    guide = Guide(slope=0.5, scale=0.5**0.5)
    objective = AAE(Quadratic(sees_data=False), 4, discriminator_lr=0.02)
    for _ in range(150):
        objective.differentiable_loss(model, guide, x)
    z = 0.5 * x + 0.5**0.5 * torch.randn(200, 2000)
    expected = dist.Normal(z, 1.0).log_prob(x).mean()
    assert abs(objective.bound(model, guide, x).mean() - expected) < 0.03  # over seeds 0.01


def test_an_implicit_prior_is_only_drawn_from() -> None:
    """A prior known by samples: here a Normal, so the ELBO of the explicit model comes out."""

    def by_samples(x: Tensor) -> None:
        prior = Implicit(lambda shape: torch.randn((*shape, 1)), event_dim=1, shape=(1,))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    guide, objective = Guide(implicit=False), AVB(Quadratic(), 8, discriminator_lr=0.02)
    x = torch.randn(300) * 2**0.5
    for _ in range(300):
        objective.differentiable_loss(by_samples, guide, x)
    torch.manual_seed(0)
    found = objective.bound(by_samples, guide, x).mean()
    assert abs(found - ELBO(100).bound(model, guide, x).mean()) < 0.1  # over seeds 0.04
