"""Which programs play against the critic of both joints, and which are refused."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from linear_pairs import Guide, Model, Quadratic, data, exact_ratio
from torch import Tensor, nn

from pyro_lvm.cli.main import main
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, PlateError, ProgramError
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import ALI

pytestmark = pytest.mark.usefixtures("float64")


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
    objective = ALI(exact_ratio(model, guide), 3, data="x", num_discriminator_steps=0)
    x, y = data(6), torch.tensor([0.1, torch.nan, 0.5, torch.nan, -1.0, 2.0])
    particles = objective.particles(model, guide, x, y)
    z = particles.values["z"][..., 0]
    labels = torch.where(y.isnan(), 0.0, dist.Normal(z, 0.3).log_prob(y.nan_to_num()))
    logit = exact_ratio(model, guide)(particles.values["z"], x)
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


def test_from_the_command_line(tmp_path: Path) -> None:
    """A cell as any other: real data, a Gaussian likelihood, the discriminator of default size."""
    short = ["--train.steps", "2", "--train.batch_size", "20", "--evaluation.num_samples", "10"]
    short += ["--evaluation.max_data", "5", "--evaluation.posterior_data", "3"]
    programs = ["--model.options.likelihood", "gaussian", "--data.name", "concrete"]
    chosen = ["--objective.name", "ALI", "--objective.options.divergence", "kl"]
    assert main(["fit", "--out", str(tmp_path), *short, *programs, *chosen]) == 0
    assert "ALI" in (tmp_path / "table.md").read_text()


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
    masked = pyro.poutine.mask(mask=torch.tensor([True, False, True]))
    with explained(ProgramError, "site 'x'", "whole data", "a mask", "Complete the data"):
        ALI(Quadratic()).loss(masked(Model()), masked(Guide()), data(3))


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
