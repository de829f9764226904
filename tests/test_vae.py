"""The variational autoencoder: sites, starts, what it refuses, and its prior."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import nn
from vae_parts import LearnedNormal, programs, trained

from pyro_lvm.distributions import ConditionalFlow
from pyro_lvm.errors import ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO


def test_vae_sites_and_shapes() -> None:
    model = VAE(6, (4, 3, 2), (8,))
    sites = pyro.poutine.trace(model).get_trace(size=5).nodes
    shapes = {name: tuple(sites[name]["value"].shape) for name in ("z3", "z2", "z1", "x")}
    assert shapes == {"z3": (5, 2), "z2": (5, 3), "z1": (5, 4), "x": (5, 6)}
    assert [name for name in sites if name in shapes] == list(shapes)
    assert VAE(6, 2).latent_features == {"z": 2}


def test_vae_starts_at_the_mean_of_the_data() -> None:
    pixels = torch.tensor([0.0, 0.2, 0.9, 1.0])
    for latent in (2, (3, 2)):
        model = VAE(4, latent, (), data_mean=pixels)
        start = model.decode(torch.zeros(model.latent_features.get("z", 3))).mean
        torch.testing.assert_close(start, pixels.clamp(1e-3, 1 - 1e-3))
    gaussian = VAE(4, 2, (), "gaussian", noise="network", data_mean=pixels)
    torch.testing.assert_close(gaussian.decode(torch.zeros(2)).mean, pixels)


def test_vae_layers_have_their_own_widths() -> None:
    model = VAE(6, (4, 2), [(8,), (7,)])
    assert model.decoder.layers[0].out_features == 8
    assert model.layers[0].network.layers[0].out_features == 7


def test_vae_of_gray_pixels_is_refused() -> None:
    model, guide = VAE(6, 2, (8,)), AmortizedNormal(in_features=6, latent_features=2)
    with pytest.raises(PyroLVMError, match="site 'x': expected a value that"):
        ELBO().loss(model, guide, torch.full((3, 6), 0.5))


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: VAE(0), r"in_features: expected an integer >= 1, got 0"),
    (lambda: VAE(6, -1), r"latent_features of 'z': expected an integer >= 1, got -1"),
    (lambda: VAE(6, ()), r"latent_features: expected at least one size, got none"),
    (lambda: VAE(6, 2, likelihood="beta"), r"likelihood: expected one of .* got 'beta'"),
    (lambda: VAE(6, 2, noise="none"), r"noise: expected one of .* got 'none'"),
    (lambda: VAE(6, 2, num_data=0), r"num_data: expected an integer >= 1, got 0"),
    (lambda: VAE(6, 2, data_mean=torch.zeros(3)), r"data_mean: expected 6 means, got 3"),
    (
        lambda: VAE(6, 2, decoder=nn.Linear(2, 6), data_mean=torch.zeros(6)),
        r"data_mean: expected the default decoder, got a Linear",
    ),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


# The prior.


def test_prior_of_the_top_layer() -> None:
    prior = LearnedNormal(2)
    prior.loc.data.fill_(3.0)
    model = VAE(6, (4, 2), (8,), prior=prior)
    sites = pyro.poutine.trace(model).get_trace(size=400).nodes
    assert (sites["z2"]["value"].mean(0) - 3.0).abs().max() < 5 / 400**0.5
    assert sites["z2"]["fn"].batch_shape == (400,)
    assert VAE(6, 2).prior is None


@pytest.mark.parametrize("make", [LearnedNormal, ConditionalFlow])
def test_a_prior_is_trained(make: Callable[[int], nn.Module]) -> None:
    """It follows the latents of the data: they are likelier under it than under a new one."""
    model, guide = programs("gaussian", prior=make(2))
    x = 2 + torch.randn(200, 2) @ torch.randn(2, 6)
    trained(model, guide, x)
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        z = guide(x)["z"]
        gain = model.prior().log_prob(z) - make(2)().log_prob(z)
    assert gain.mean() > 5 * gain.std() / len(x) ** 0.5


class OfShape(nn.Module):
    def __init__(self, *shape: int, event_dim: int = 1) -> None:
        super().__init__()
        self.shape, self.event_dim = shape, event_dim

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(torch.zeros(self.shape), 1.0).to_event(self.event_dim)


@pytest.mark.parametrize(
    ("prior", "found"),
    [
        (OfShape(3), "() and (3,)"),
        (OfShape(5, 2), "(5,) and (2,)"),
        (OfShape(2, event_dim=0), "(2,) and ()"),
    ],
)
def test_prior_of_another_shape(prior: nn.Module, found: str) -> None:
    expected = "batch shape () and event shape (2,)"
    with explained(ProgramError, "prior", expected, found, ".to_event(1)"):
        VAE(6, 2, prior=prior)(size=3)
