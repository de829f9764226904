"""Adversarial objectives: exact with an exact discriminator, and right as it learns."""

import pickle
from copy import deepcopy
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.diagnostics import sample_posterior, to_inference_data
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, ProgramError
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AAE, AVB, ELBO, IWAAE, IWAE, IWAVB
from pyro_lvm.weights import pareto_khat

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)


class Exact(nn.Module):
    """The log-ratio of Normal(slope x, 0.9) to the prior, or to the guide's own moments."""

    def __init__(self, slope: float = 0.4) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q = dist.Normal(self.slope * x, 0.9)
        return q.log_prob(z[..., 0]) - dist.Normal(0.0, 1.0).log_prob(z[..., 0])


class Quadratic(nn.Module):
    """Logits that are quadratic in (z, x): the exact family where all is Gaussian."""

    def __init__(self, sees_data: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(5 if sees_data else 2, 1).double()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.sees_data = sees_data

    def forward(self, z: Tensor, x: Tensor | None) -> Tensor:
        z = z[..., 0]
        terms = [z, z * z]
        if self.sees_data:
            assert x is not None
            terms += [z * x, (x * x).expand_as(z), x.expand_as(z)]
        return self.linear(torch.stack(terms, -1)).squeeze(-1)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1).to(x), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


class Guide(nn.Module):
    """z = w x + s noise, with or without its density."""

    def __init__(self, implicit: bool = True, slope: float = 0.4, scale: float = 0.9) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64).log())
        self.implicit = implicit

    def forward(self, x: Tensor) -> None:
        loc, scale = (self.slope * x).unsqueeze(-1), self.log_scale.exp()

        def sampler(shape: torch.Size) -> Tensor:
            return loc + scale * torch.randn(shape + loc.shape).to(loc)

        explicit = dist.Normal(loc, scale).to_event(1)
        with pyro.plate("data", len(x)):
            z = Implicit(sampler, event_dim=1, shape=loc.shape) if self.implicit else explicit
            pyro.sample("z", z)


def value_and_gradient(objective: Objective, guide: Guide) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    loss = objective.differentiable_loss(model, guide, X)
    return loss.detach(), torch.stack(torch.autograd.grad(loss, [*guide.parameters()]))


# With the exact log-ratio.


@pytest.mark.parametrize(
    ("adversarial", "explicit"),
    [
        (lambda: AVB(Exact()), lambda: ELBO(1, "stl")),
        (lambda: AVB(Exact(), 5), lambda: ELBO(5, "stl")),
        (lambda: IWAVB(Exact(), 5), lambda: IWAE(5, "dreg")),
        (lambda: AAE(Exact(), 5, context=lambda x: x), lambda: ELBO(5, "stl")),
        (lambda: IWAAE(Exact(), 5, context=lambda x: x), lambda: IWAE(5, "dreg")),
    ],
    ids=["AVB-1", "AVB-5", "IWAVB-5", "AAE", "IWAAE"],
)
def test_exact_discriminator_gives_the_explicit_value_and_gradient(adversarial, explicit) -> None:
    """To rounding, draw by draw: then expectations agree too."""
    value, gradient = value_and_gradient(adversarial(), Guide())
    expected, its_gradient = value_and_gradient(explicit(), Guide(implicit=False))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, its_gradient)


@pytest.mark.parametrize("classes", [(IWAVB, AVB), (IWAAE, AAE)])
def test_one_particle_is_the_unweighted_objective_to_the_digit(classes) -> None:
    weighted, plain = (cls(Exact(), context=lambda x: x) for cls in classes)
    first, second = value_and_gradient(weighted, Guide()), value_and_gradient(plain, Guide())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_plain_weights_are_an_option_and_another_gradient() -> None:
    """dreg against stl weights at the same draws: same value, other gradient (and biased)."""
    squared = value_and_gradient(IWAVB(Exact(), 5), Guide())
    plain = value_and_gradient(IWAVB(Exact(), 5, "stl"), Guide())
    assert torch.equal(squared[0], plain[0])
    assert not torch.allclose(squared[1], plain[1])


@pytest.mark.parametrize("objective", [AVB(Exact(), 4), IWAVB(Exact(), 4)], ids=["AVB", "IWAVB"])
def test_an_explicit_guide_can_be_covered_too(objective) -> None:
    """With the densities covered by their exact ratio nothing changes."""
    torch.manual_seed(1)
    covered = objective.bound(model, Guide(implicit=False), X)
    torch.manual_seed(1)
    explicit = {AVB: ELBO, IWAVB: IWAE}[type(objective)]
    torch.testing.assert_close(covered, explicit(4).bound(model, Guide(implicit=False), X))


def test_exact_standardised_ratio_under_adaptive_contrast() -> None:
    """T is 0 where guide and contrast are both Gaussian; the moments' error is of order 1/J."""

    class Zero(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z.new_zeros(z.shape[:-1])

    objective = AVB(Zero(), 500, contrast="adaptive")
    draws = torch.stack([objective.bound(model, Guide(), X) for _ in range(40)])
    exact = ELBO(20_000).bound(model, Guide(implicit=False), X)
    assert ((draws.mean(0) - exact).abs() < 0.05).all()  # moments of 500 draws: 1 / 500 and noise


def test_weights_and_diagnostics_use_the_ratio() -> None:
    objective, guide = IWAVB(Exact(), 400), Guide()
    log_weights = objective.log_weights(model, guide, X)
    assert log_weights.shape == (400, 4)
    assert pareto_khat(log_weights).shape == (4,)
    container = to_inference_data(model, guide, X, num_samples=20, objective=objective)
    assert container["sample_stats"]["log_weight"].notnull().all()
    unknown = to_inference_data(model, guide, X, num_samples=20)
    assert unknown["sample_stats"]["log_weight"].isnull().all()
    assert unknown["posterior"]["z"].shape == (1, 20, 4, 1)
    assert sample_posterior(model, guide, X, num_samples=7)["z"].shape == (7, 4, 1)


# As it learns.


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
    assert abs(guide.slope.item() - 0.5) < 0.04
    assert abs(guide.log_scale.exp().item() - 0.5**0.5) < 0.06
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
    assert abs(objective.bound(model, guide, x).mean() - expected) < 0.1


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
    assert abs(found - ELBO(100).bound(model, guide, x).mean()) < 0.1


# What goes wrong.


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
