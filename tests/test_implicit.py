"""Implicit sites and the guides made of them: draws with gradients, no density anywhere."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from pyro_lvm import fit
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, ProgramError
from pyro_lvm.guides import ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import ConvEncoder, Discriminator
from pyro_lvm.objectives import AVB, ELBO, IWAE, IWAVB
from pyro_lvm.testing import ContractError, check_guide, check_model
from pyro_lvm.tracing import Recorder, Site, record

pytestmark = pytest.mark.usefixtures("float64")

NOISES = ("concat", "basis")
every_noise = pytest.mark.parametrize("noise", NOISES)
TRY = "Use AVB or IWAVB (a discriminator of data and latents), AAE or IWAAE (of latents)"


def small(noise: str = "concat", **options: Any) -> ImplicitGuide:
    given = {"in_features": 6, "latent_features": 2, "hidden": (8,), "noise_hidden": (8, 8)}
    return ImplicitGuide(noise=noise, **{**given, **options})


def moved(guide: ImplicitGuide) -> ImplicitGuide:
    """Away from its start, at which x matters little."""
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return guide


def sites_of(program: Callable[..., Any], *args: Any, particles: int = 3) -> dict[str, Site]:
    return record(program, args, {}, Recorder(particles, 2)).sites


# The distribution.


def standard(*shape: int) -> Implicit:
    return Implicit(lambda left: torch.randn(left + shape), event_dim=1, shape=shape)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (4, 5, 2)])
def test_shapes_and_expansion(shape: tuple[int, ...]) -> None:
    z = standard(*shape)
    assert z.batch_shape + z.event_shape == shape
    assert z.event_shape == (2,)
    assert z.rsample((7,)).shape == (7, *shape)
    wider = z.expand((3, *z.batch_shape))
    assert wider.rsample((7,)).shape == (7, 3, *shape)
    draws = wider.rsample()
    assert (draws[0] != draws[1]).all()


def test_shape_of_one_draw_is_found() -> None:
    z = Implicit(lambda left: torch.rand((*left, 4, 5, 2)), event_dim=2)
    assert (z.batch_shape, z.event_shape) == ((4,), (5, 2))


def test_draws_have_gradients() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    z = Implicit(lambda left: scale * torch.ones(left), event_dim=0)
    assert torch.autograd.grad(z.rsample((3,)).sum(), scale) == (torch.tensor(3.0),)


def test_sampler_of_another_shape() -> None:
    def sampler(sample_shape: torch.Size) -> Tensor:
        return torch.randn(5, 2)

    z = Implicit(sampler, event_dim=1, shape=(5, 2))
    with explained(
        ProgramError,
        "sampler of an Implicit distribution",
        "draws of shape (3, 5, 2) for sample shape (3,)",
        "(5, 2)",
        "sample_shape + (*batch, ...)",
    ):
        z.rsample((3,))


def test_event_dims_that_are_not_there() -> None:
    with explained(ProgramError, "event_dim", "from 0 to 2", "3", "that are no plate"):
        Implicit(lambda left: torch.zeros(left), event_dim=3, shape=(5, 2))


def test_no_density() -> None:
    found = "it can be drawn from, and has no density"
    with explained(DensityError, "an Implicit distribution", "a density", found, TRY):
        standard(2).log_prob(torch.zeros(2))
    model, guide = VAE(6, 2, hidden=(8,)), small()
    for objective in (ELBO(), IWAE(2), IWAE(2, "dreg"), ELBO(2, "score")):
        with explained(DensityError, "site 'z'", "for this objective", found, TRY):
            objective.loss(model, guide, torch.rand(4, 6))


# As a prior.


class Prior(PyroModule):
    """A prior known by its draws: a network of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.push, self.decode = nn.Linear(3, 2), nn.Linear(2, 4)

    def draw(self, sample_shape: torch.Size) -> Tensor:
        pushed: Tensor = self.push(torch.randn((*sample_shape, 3))).tanh()
        return pushed

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", Implicit(self.draw, event_dim=1))
            drawn: Tensor = pyro.sample("x", dist.Normal(self.decode(z), 1.0).to_event(1), obs=x)
        return drawn


def test_prior_keeps_the_contract() -> None:
    check_model(Prior())


def test_prior_in_plates_of_a_model() -> None:
    model = Prior()
    assert model(size=7).shape == (7, 4)
    sites = sites_of(model, torch.zeros(5, 4))
    assert sites["z"].value.shape == (3, 1, 5, 2)
    assert (sites["z"].value[0] != sites["z"].value[1]).all()
    predicted = pyro.infer.Predictive(model, num_samples=6)(size=5)
    assert predicted["z"].shape == (6, 5, 2)


def test_nested_plates_and_a_mask() -> None:
    mask = torch.tensor([True, False, True, True, False])

    def model() -> Tensor:
        rows, columns = pyro.plate("rows", 4, dim=-2), pyro.plate("columns", 5, dim=-1)
        with rows, columns, poutine.mask(mask=mask):
            z: Tensor = pyro.sample("z", Implicit(lambda left: torch.randn(left)))
        return z

    assert model().shape == (4, 5)
    assert len(model().unique()) == 20
    site = sites_of(model)["z"]
    assert site.value.shape == (3, 4, 5)
    assert torch.equal(site.mask, mask)


# The guide.


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


# The contract of guides without density: a planted fault is found.


class Guide(PyroModule):
    """A right guide, for faults to be planted in by overriding its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.spread = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> None:
        shift = self.features(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Implicit(lambda left: self.draw(shift, left), 1, shape=shift.shape))

    def features(self, x: Tensor) -> Tensor:
        shift: Tensor = self.shift(x)
        return shift

    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = shift + self.spread(torch.randn(left + shift.shape))
        return drawn


class Beside(Guide):
    """A site with a density beside the one without."""

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(self.shift(x), 1.0).to_event(1))


class Number(Guide):
    """A site without event dims."""

    def forward(self, x: Tensor) -> None:
        shift = self.features(x)

        def draw(left: torch.Size) -> Tensor:
            return self.draw(shift, left)[..., 0] + self.draw(shift, left)[..., 1]

        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Implicit(draw, shape=shift.shape[:-1]))


class Pooled(Guide):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + super().features(x).mean(0)


class Unused(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        return shift + torch.randn(left + shift.shape)


class NoNoise(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = (shift + self.spread(shift)).expand(left + shift.shape)
        return drawn


class SharedNoise(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = shift + self.spread(torch.randn((*left, 1, shift.shape[-1])))
        return drawn


class SharedByParticles(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        half = torch.randn((max(left.numel() // 2, 1), *shift.shape))
        noise = half.repeat_interleave(2, 0)[: left.numel()].reshape(left + shift.shape)
        drawn: Tensor = shift + self.spread(noise)
        return drawn


class Remembers(Guide):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2).weight.detach()

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)()

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) @ self.last


@pytest.mark.parametrize("guide", [Guide, Beside, Number])
def test_right_guides_pass(guide: type[Guide]) -> None:
    check_guide(guide(), torch.randn(4, 3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Pooled, "draws beside another datum: expected the same"),
        (Unused, "parameter 'spread.weight': expected a finite gradient"),
        (NoNoise, "draws of site 'z': expected finite ones that vary"),
        (SharedNoise, "draws of site 'z': expected independent data, got correlations of 1"),
        (SharedByParticles, "draws of site 'z': expected independent draws, got correlations"),
        (Remembers, "state_dict: expected the same program"),
    ],
)
def test_a_planted_fault_is_found(fault: type[Guide], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_guide(fault(), torch.randn(4, 3))
