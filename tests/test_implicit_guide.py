"""Guides of noise through a network: independent draws with gradients, no density anywhere."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from explained import explained
from implicit_parts import sites_of, small
from moved import moved
from pyro import poutine
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from pyro_lvm import fit
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import ConvEncoder, Discriminator
from pyro_lvm.objectives import AVB, IWAVB
from pyro_lvm.testing import check_guide

pytestmark = pytest.mark.usefixtures("float64")
NOISES = ("concat", "basis")
every_noise = pytest.mark.parametrize("noise", NOISES)


@every_noise
def test_particles_and_data_have_noise_of_their_own(noise: str) -> None:
    """The same datum five times: correlations within 5 standard errors of 0."""
    guide, x = small(noise), torch.rand(1, 6).expand(5, 6)
    z = sites_of(guide, x, particles=4000)["z"].value[:, 0]
    assert z.shape == (4000, 5, 2)
    entries = torch.cat([z[::2], z[1::2]], 1)  # particles two by two, each of 5 data
    for feature in entries.unbind(-1):
        correlation = torch.corrcoef(feature.T) - torch.eye(10)
        assert correlation.abs().max() < 5 / 2000**0.5


@every_noise
@pytest.mark.parametrize("latent_features", [2, {"z1": 3, "z2": 2}])
def test_particles_share_the_encoder(noise: str, latent_features: Any) -> None:
    guide, rows = small(noise, latent_features=latent_features), []
    guide.encoding.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    sites = sites_of(guide, torch.rand(4, 6), particles=9)
    assert rows == [(4, 128)]
    assert {site.value.shape[0] for site in sites.values()} == {9}


@every_noise
def test_context_meets_the_noise_once(noise: str) -> None:
    guide, rows = small(noise), []
    network = guide.networks[0]
    first = network.layers[0] if noise == "concat" else network.coefficients
    first.register_forward_hook(lambda _, x, y: rows.append(tuple(x[0].shape)))
    sites_of(guide, torch.rand(4, 6), particles=9)
    assert rows == [(4, 128)]


@every_noise
@pytest.mark.parametrize("size", [1, 2, 16])
def test_start_is_near_a_standard_normal(noise: str, size: int) -> None:
    z = sites_of(small(noise, latent_features=size), torch.rand(4, 6), particles=4000)["z"].value
    # Networks at random: over seeds means are off by up to 0.09, deviations by 0.045.
    assert z.mean(0).abs().max() < 0.2
    assert (z.std(0) - 1).abs().max() < 0.1
    error = (24 / (4 * 4000)) ** 0.5  # standard error of a Normal's kurtosis
    assert (((z - z.mean(0)) / z.std(0)).pow(4).mean() - 3).abs() < 5 * error


@every_noise
def test_later_sites_depend_on_earlier_ones(noise: str) -> None:
    guide, x, drawn = small(noise, latent_features=(3, 2)), torch.rand(4, 6), []
    for z1 in (torch.zeros(4, 3), torch.ones(4, 3)):
        pyro.set_rng_seed(1)
        drawn.append(poutine.condition(guide, data={"z1": z1})(x)["z2"])
    assert (drawn[0] != drawn[1]).all()


def test_moments_are_those_of_the_draws() -> None:
    """For each datum; within 4 standard errors, which are those of both sides."""
    guide, x, num_draws = moved(small("basis")), 4 * torch.randn(3, 6), 10_000
    with torch.no_grad():
        mean, scale = guide.moments(x, num_draws=num_draws)
        z = sites_of(guide, x, particles=num_draws)["z"].value[:, 0]
    spread, centred = z.std(0), z - z.mean(0)
    assert (mean - z.mean(0)).abs().le(4 * spread * (2 / num_draws) ** 0.5).all()
    of_variance = centred.square().std(0) * (2 / num_draws) ** 0.5
    assert (scale.square() - spread.square()).abs().le(4 * of_variance).all()
    assert of_variance.lt(0.1 * spread.square()).all()
    assert (mean[0] - mean[1]).abs().gt(0.1 * spread[0]).any()  # they differ


def test_moments_have_gradients() -> None:
    guide = small("basis")
    mean, scale = guide.moments(torch.rand(3, 6))
    parameters = [*guide.parameters()]
    for gradient in torch.autograd.grad((mean + scale).sum(), parameters):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("guide", "found"),
    [
        (lambda: small("concat"), "ConcatNoise for sites ['z']"),
        (lambda: small("basis", latent_features=(3, 2)), "BasisNoise for sites ['z1', 'z2']"),
    ],
)
def test_moments_that_are_not_known(guide: Callable[[], ImplicitGuide], found: str) -> None:
    with explained(ProgramError, "moments", "one site, of noise 'basis'", found, "noise='basis'"):
        guide().moments(torch.rand(3, 6))


def test_encoder_of_pictures() -> None:
    encoder = ConvEncoder(8, channels=(2, 3))
    guide = ImplicitGuide(encoder, encoder_features=encoder.out_features, latent_features=2)
    check_guide(guide, torch.rand(4, 64), num_draws=500)


class PictureDiscriminator(nn.Module):
    """Latents told apart given a picture, by an encoder of its own."""

    def __init__(self, latent_features: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(28, channels=(2, 3))
        self.logit = Discriminator(latent_features, self.encoder.out_features, hidden=(8,))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        logit: Tensor = self.logit(z, self.encoder(x))
        return logit


@every_noise
@pytest.mark.parametrize("objective", [AVB, IWAVB])
def test_pictures_train(noise: str, objective: type[AVB]) -> None:
    """28 x 28: all networks move, and each picture goes through its encoders once a step."""
    torch.set_default_dtype(torch.float32)
    encoder, rows = ConvEncoder(28, channels=(2, 3)), []
    model = VAE(784, 2, hidden=(8,))
    guide = small(noise, encoder=encoder, encoder_features=encoder.out_features)
    adversarial = objective(PictureDiscriminator(2), 4, num_discriminator_steps=2)
    networks = {"model": model, "guide": guide, "T": adversarial.discriminator}
    before = {n: parameters_to_vector(m.parameters()).detach() for n, m in networks.items()}
    encoder.register_forward_hook(lambda _, x, y: rows.append(len(y)))
    adversarial.discriminator.encoder.register_forward_hook(lambda _, x, y: rows.append(len(y)))
    x = torch.rand(6, 1, 28, 28).round().flatten(1)
    result = fit(
        model, guide, x, adversarial, max_steps=5, batch_size=3, progress=False, log_every=1
    )
    assert all(loss == loss for loss in result.history["loss"])
    assert set(rows) <= {3, 6}
    for name, module in networks.items():
        moved = parameters_to_vector(module.parameters()) != before[name]
        assert moved.float().mean() > 0.9, name


def test_wrong_arguments() -> None:
    for name in ("noise_features", "num_bases", "context_features", "num_data"):
        with explained(ProgramError, name, "an integer >= 1", "0", f"Check {name}"):
            small(**{name: 0})
    with explained(ProgramError, "noise", "one of ['concat', 'basis']", "'white'", "'concat'"):
        small("white")
    with explained(ProgramError, "noise_hidden", "at least one size", "()", "(128, 128)"):
        small(noise_hidden=())
