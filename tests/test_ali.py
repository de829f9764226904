"""Both joints before one critic: with an exact critic the gradients are those of divergences."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from linear_pairs import (
    GRID,
    ExactRatio,
    Guide,
    Model,
    Quadratic,
    data,
    divergence,
    log_joints,
    mean_gradient,
)
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.cli.main import main
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, PlateError, ProgramError
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import ALI

pytestmark = pytest.mark.usefixtures("float64")


def exact(model: Model, guide: Guide) -> ExactRatio:
    """log q(x, z) / p(x, z) of the programs as they are now."""
    model, guide = deepcopy(model), deepcopy(guide)

    def log_ratio(z: Tensor, x: Tensor) -> Tensor:
        log_q, log_p = log_joints(model, guide, z, x)
        return log_q - log_p

    return ExactRatio(log_ratio)


# With the exact log-ratio.


@pytest.mark.parametrize(
    ("name", "of_guide", "of_model"),
    [
        ("kl", "kl", "kl"),
        ("reverse_kl", "reverse_kl", "reverse_kl"),
        ("jensen_shannon", "jensen_shannon", "jensen_shannon"),
        ("non_saturating", "mixture to b", "mixture to a"),
    ],
)
def test_gradient_is_that_of_the_divergence(name: str, of_guide: str, of_model: str) -> None:
    """To 4.5 standard errors, against the derivative of a quadrature, for both programs."""
    model, guide = Model(), Guide()
    log_q, log_p = log_joints(model, guide, GRID[:, None], GRID)
    expected = torch.stack(
        [
            *torch.autograd.grad(
                divergence(of_guide, log_q, log_p), [*guide.parameters()], retain_graph=True
            ),
            *torch.autograd.grad(divergence(of_model, log_q, log_p), [*model.parameters()]),
        ]
    )
    objective = ALI(exact(model, guide), 2, divergence=name, num_discriminator_steps=0)

    def loss() -> Tensor:
        return objective.differentiable_loss(model, guide, data(10_000)) / 10_000

    found, error = mean_gradient(loss, [*guide.parameters(), *model.parameters()])
    assert ((found - expected).abs() < 4.5 * error).all(), (found, expected, error)
    assert (expected.abs() > 10 * error).all()  # it could have been told apart from 0


def test_value_is_minus_the_divergence_of_the_joints() -> None:
    model, guide = Model(), Guide()
    expected = -divergence("kl", *log_joints(model, guide, GRID[:, None], GRID))
    for name in ("kl", "non_saturating"):
        found = ALI(exact(model, guide), 4, divergence=name).bound(model, guide, data(100_000))
        assert abs(found.mean() - expected) < 4.5 * found.std() / len(found) ** 0.5


def test_no_gradient_at_the_exact_posterior_of_the_exact_model() -> None:
    """Then the logit is 0 at every draw, but for rounding."""
    model, guide = Model(slope=1.0, scale=1.0), Guide(slope=0.5, scale=0.5**0.5)
    objective = ALI(exact(model, guide), divergence="kl", num_discriminator_steps=0)
    x = data(50)
    assert objective.bound(model, guide, x).abs().max() < 1e-12
    gradients = torch.autograd.grad(
        objective.differentiable_loss(model, guide, x), [*guide.parameters()]
    )
    assert max(g.abs() for g in gradients) < 1e-10


def test_weights_are_kept_within_bounds() -> None:
    """DEAR's: e^T from 1/2 to 2. A logit of z alone, so x does not matter."""

    class Steep(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 3.0 + z[..., 0]  # e^T is far above 2

    prior = nn.Parameter(torch.zeros(1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(prior, 0.01).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    objective = ALI(Steep(), divergence="kl", max_weight=2.0, num_discriminator_steps=0)
    (gradient,) = torch.autograd.grad(
        objective.differentiable_loss(model, Guide(), data(7)), [prior]
    )
    torch.testing.assert_close(gradient, torch.tensor([-2.0 * 7]))


# As the critic learns.


def test_critic_learns_the_log_ratio() -> None:
    """Programs at rest: its five coefficients tend to those of log q(x, z) / p(x, z)."""
    torch.manual_seed(0)
    model, guide = Model(), Guide()
    objective = ALI(Quadratic(), 2, discriminator_lr=lambda step: 0.05 * (1 - step / 300))
    for _ in range(300):
        objective.differentiable_loss(model, guide, data(2000))
    z, x = torch.randn(1000, 1), data(1000)
    found, expected = objective.critics["only"].discriminator(z, x), exact(model, guide)(z, x)
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.995
    assert (found - expected).abs().mean() < 0.1


@pytest.mark.slow
def test_training_finds_model_and_posterior() -> None:
    """The model has the variance of the data, and the guide is its posterior."""
    torch.manual_seed(0)
    model, guide, x = Model(), Guide(), data(1000)
    objective = ALI(Quadratic(), 2, discriminator_lr=0.05, num_discriminator_steps=2)
    fit(model, guide, x, objective, batch_size=None, max_steps=600, lr=0.02,
        lr_scheduler="cosine", diagnostic_particles=0, progress=False)  # fmt: skip
    w, s = model.slope.item(), model.log_scale.exp().item()
    assert abs(w**2 + s**2 - x.var().item()) < 0.2
    assert abs(guide.slope.item() - w / (w**2 + s**2)) < 0.08
    assert abs(guide.log_scale.exp().item() - s / (w**2 + s**2) ** 0.5) < 0.08


def stepped(objective: ALI, steps: int) -> tuple[Tensor, Model, Guide]:
    """The critic's weights and the programs after plain torch steps."""
    model, guide = Model(), Guide()
    module = objective(model, guide)
    optimiser = torch.optim.Adam([*model.parameters(), *guide.parameters()], 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        module(data(8)).backward()
        optimiser.step()
    critic = objective.critics["only"].discriminator
    return torch.cat([p.flatten() for p in critic.parameters()]), model, guide


@pytest.mark.parametrize("options", [{}, {"num_discriminator_steps": 3, "divergence": "kl"}])
def test_state_goes_on_exactly(options: dict[str, Any]) -> None:
    first = ALI(Quadratic(), 2, **options)
    _, model, guide = stepped(first, 3)
    second = ALI(Quadratic(), 2, **options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    losses = []
    for objective in (first, second, deepcopy(first)):
        torch.manual_seed(5)
        programs = deepcopy((model, guide))
        losses.append([objective.differentiable_loss(*programs, data(8)).item() for _ in range(3)])
    assert losses[0] == losses[1] == losses[2]


def test_training_steps_alone_train_the_critic() -> None:
    weights, *programs = stepped(objective := ALI(Quadratic(), 2), 3)
    assert weights.any()
    state = str(objective.state_dict())
    objective.loss(*programs, data(8))
    objective.bound(*programs, data(8))
    assert str(objective.state_dict()) == state
    objective.differentiable_loss(*programs, data(8)).backward()
    critic = objective.critics["only"].discriminator
    assert str(objective.state_dict()) != state
    assert not any(p.requires_grad for p in critic.parameters())


def test_under_svi() -> None:
    model, guide, objective = Model(), Guide(), ALI(Quadratic())

    def named_model(x: Tensor) -> None:
        pyro.module("model", model)(x)

    def named_guide(x: Tensor) -> None:
        pyro.module("guide", guide)(x)

    svi = SVI(named_model, named_guide, pyro.optim.Adam({"lr": 0.01}), objective)
    before = [p.item() for p in (*model.parameters(), *guide.parameters())]
    losses = [svi.step(data(20)) for _ in range(3)]
    assert all(isinstance(loss, float) for loss in losses)
    after = [p.item() for p in (*model.parameters(), *guide.parameters())]
    assert all(a != b for a, b in zip(after, before, strict=True))


# Programs of other kinds.


def trains(model: Any, guide: Any, *args: Any, **options: Any) -> None:
    """A gradient reaches every parameter of both programs."""
    objective = ALI(Discriminator(2, 4, hidden=(8,)).double(), 3, **options)
    objective.differentiable_loss(model, guide, *args).backward()
    objective.differentiable_loss(model, guide, *args).backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("implicit", [True, False])
def test_networks_without_and_with_a_density(implicit: bool) -> None:
    cls = ImplicitGuide if implicit else AmortizedNormal
    guide = cls(in_features=4, latent_features=2, hidden=(8,))
    trains(VAE(4, 2, (8,), "gaussian"), guide, torch.randn(5, 4))


class Points(nn.Module):
    """BiGAN: encoder and generator without noise, as Delta sites."""

    def __init__(self, implicit: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)
        self.implicit = implicit

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.encoder(x)).to_event(1))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            made = self.decoder(z)
            by_draws = Implicit(lambda shape: made.expand(shape + made.shape), 1, shape=made.shape)
            pyro.sample("x", by_draws if self.implicit else dist.Delta(made).to_event(1), obs=x)


@pytest.mark.parametrize("implicit", [True, False])
def test_generator_without_noise(implicit: bool) -> None:
    points = Points(implicit)
    objective = ALI(Discriminator(2, 4, hidden=(8,)).double())
    objective.differentiable_loss(points.model, points.guide, torch.randn(5, 4)).backward()
    for parameter in points.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


class Labelled(Model):
    """With a label that the latent predicts; NaN where it is not known."""

    def forward(self, x: Tensor, y: Tensor) -> None:  # type: ignore[override]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", self.x_given(z).to_event(1), obs=x)
            label = dist.Normal(z[..., 0], 0.3)
            with pyro.poutine.mask(mask=~y.isnan()):
                pyro.sample("y", label, obs=y)


class LabelledGuide(Guide):
    def forward(self, x: Tensor, y: Tensor) -> None:  # type: ignore[override]
        super().forward(x)


def test_labels_keep_their_density() -> None:
    model, guide = Labelled(), LabelledGuide()
    objective = ALI(exact(model, guide), 3, data="x", num_discriminator_steps=0)
    x, y = data(6), torch.tensor([0.1, torch.nan, 0.5, torch.nan, -1.0, 2.0])
    particles = objective.particles(model, guide, x, y)
    z = particles.values["z"][..., 0]
    labels = torch.where(y.isnan(), 0.0, dist.Normal(z, 0.3).log_prob(y.nan_to_num()))
    logit = exact(model, guide)(particles.values["z"], x)
    torch.testing.assert_close(particles.log_weights, labels - logit)


def test_labels_add_the_gradient_of_their_density() -> None:
    """The guide's slope, under a critic that says nothing."""

    class Mute(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.0 * z[..., 0]

    model, guide, x = Labelled(), LabelledGuide(scale=1e-9), data(6)
    y = torch.linspace(-1.0, 1.0, 6)
    objective = ALI(Mute(), data="x", num_discriminator_steps=0)
    loss = objective.differentiable_loss(model, guide, x, y)
    (found,) = torch.autograd.grad(loss, [guide.slope])
    z = guide.slope * x[:, 0]
    (expected,) = torch.autograd.grad(-dist.Normal(z, 0.3).log_prob(y).sum(), [guide.slope])
    torch.testing.assert_close(found, expected)


def test_a_batch_stands_for_all_data() -> None:
    model = VAE(4, 2, (8,), "gaussian", num_data=50)
    guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,), num_data=50)
    objective = ALI(Discriminator(2, 4).double())
    torch.manual_seed(0)
    loss = objective.loss(model, guide, torch.ones(5, 4))
    torch.manual_seed(0)
    bound = objective.bound(model, guide, torch.ones(5, 4))
    assert abs(loss + 10 * bound.sum()) < 1e-9


# What goes wrong.


def test_several_observed_sites_and_no_name() -> None:
    programs = Labelled(), LabelledGuide()
    with explained(ProgramError, "data", "['x', 'y']", "None", "Name the site"):
        ALI(Quadratic()).loss(*programs, data(3), torch.zeros(3))
    with explained(ProgramError, "data", "['x', 'y']", "'w'", "Name the site"):
        ALI(Quadratic(), data="w").loss(*programs, data(3), torch.zeros(3))


def test_data_that_cannot_be_moved() -> None:
    guide = AmortizedNormal(in_features=4, latent_features=2)
    with explained(ProgramError, "site 'x'", "reparameterised", "no rsample", "Gaussian"):
        ALI(Discriminator(2, 4)).loss(VAE(4, 2), guide, torch.zeros(3, 4))


def test_a_label_without_a_density() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
            by_draws = Implicit(lambda shape: torch.randn((*shape, len(x), 1)), 1)
            pyro.sample("y", by_draws, obs=x)

    with explained(DensityError, "site 'y'", "a density", "Implicit", "AVB"):
        ALI(Quadratic(), data="x").loss(model, Guide(), data(3))


def test_masked_data() -> None:
    def model(x: Tensor) -> None:
        with pyro.poutine.mask(mask=torch.tensor([True, False, True])):
            Model()(x)

    with explained(ProgramError, "site 'x'", "whole data", "a mask", "Complete the data"):
        ALI(Quadratic()).loss(model, Guide(), data(3))


def test_a_factor_of_the_guide() -> None:
    def guide(x: Tensor) -> None:
        Guide()(x)
        with pyro.plate("data", len(x)):
            pyro.factor("extra", x[:, 0], has_rsample=True)

    with explained(ProgramError, "site 'extra'", "draws of the guide", "a factor", "the model"):
        ALI(Quadratic()).loss(Model(), guide, data(3))


def test_a_latent_that_the_guide_leaves_out() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            chosen = {"enumerate": "parallel"}
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)), infer=chosen)
            pyro.sample("x", dist.Normal(z + c.unsqueeze(-1), 1.0).to_event(1), obs=x)

    with explained(ProgramError, "site 'c'", "the guide draws", "the model alone", "Draw 'c'"):
        ALI(Quadratic()).loss(model, Guide(), data(3))


def test_a_latent_of_all_data() -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    with explained(PlateError, "site 'x'", "in the plates []", "one in ['data']", "parameters"):
        ALI(Quadratic()).loss(model, guide, data(3))


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"divergence": "kld"}, ("divergence", "'non_saturating'", "'kld'", "divergence=")),
        ({"max_weight": 0.5}, ("max_weight", ">= 1", "0.5", "max_weight=1")),
        ({"num_discriminator_steps": -1}, ("num_discriminator_steps", ">= 0", "-1", "=0")),
        ({"gradient": "stl"}, ("gradient", "'reparam'", "'stl'", "'reparam'")),
    ],
)
def test_bad_arguments(options: dict[str, Any], texts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *texts):
        ALI(Quadratic(), **options)


def test_from_the_command_line(tmp_path: Path) -> None:
    """A cell as any other: real data, a Gaussian likelihood, the discriminator of default size."""
    short = ["--train.steps", "2", "--train.batch_size", "20", "--evaluation.num_samples", "10"]
    short += ["--evaluation.max_data", "5", "--evaluation.posterior_data", "3"]
    programs = ["--model.options.likelihood", "gaussian", "--data.name", "concrete"]
    chosen = ["--objective.name", "ALI", "--objective.options.divergence", "kl"]
    assert main(["fit", "--out", str(tmp_path), *short, *programs, *chosen]) == 0
    assert "ALI" in (tmp_path / "table.md").read_text()
