"""Generative models: one contract for all, exact answers where there are any."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from vae_parts import GivenHalf, LearnedNormal, mixed, posteriors

import pyro_lvm.models
from pyro_lvm.distributions import (
    AggregatedPrior,
    CategoricalLikelihood,
    ConditionalFlow,
    MixturePrior,
    SemiImplicitPrior,
    VampPrior,
)
from pyro_lvm.errors import DataError, PlateError, ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import (
    ADGM,
    SDGM,
    VAE,
    VAEAC,
    BayesianConvNet,
    BayesianLinearRegression,
    BayesianLogisticRegression,
    BayesianLSTM,
    BayesianMLP,
    FactorAnalysis,
    GaussianMixture,
    HiddenMarkov,
    HierarchicalVAE,
    IdentifiableVAE,
    LinearCalcium,
    LinearGaussianSSM,
    NormalizingFlow,
    ProbabilisticPCA,
    SupervisedVAE,
)
from pyro_lvm.models.cell_parameters import CellParameters
from pyro_lvm.nn import ConditionalNormal, UNet
from pyro_lvm.objectives import ELBO
from pyro_lvm.testing import ContractError, check_model, discover

MODELS = discover("pyro_lvm.models")
# Called with covariates, model(x, y), and their latents are those of all data together: no
# rows to draw or to permute without x. tests/test_regression.py and tests/test_kernel_prior.py
# hold them to exact answers.
REGRESSIONS = {BayesianConvNet, BayesianLinearRegression, BayesianLogisticRegression}
# Networks, of rows and of sequences: tests/test_bayesian_networks.py.
REGRESSIONS |= {BayesianLSTM, BayesianMLP}
# Called with covariates too, though its latents are of one datum: tests/test_identifiable.py.
REGRESSIONS |= {IdentifiableVAE}
# Without labels nothing reaches the network that predicts them: tests/test_supervised.py.
REGRESSIONS |= {SupervisedVAE}
# Without latents there is nothing to expand over particles: tests/test_vgi_models.py holds it to
# its density.
DENSITIES = {NormalizingFlow}
# Traces of any number of frames, of cells: a frame rate must be given.
RECORDINGS = {
    model.__name__: partial(model, 30.0, num_frames=50)
    for model in MODELS
    if issubclass(model, CellParameters)
}
VARIANTS: dict[str, Callable[..., Any]] = {
    **{model.__name__: model for model in MODELS if model not in REGRESSIONS | DENSITIES},
    **RECORDINGS,
    "ADGM-labels": lambda **k: ADGM(6, 3, 2, (8,), num_classes=4, **k),
    "ADGM-labels-enumerated": lambda **k: ADGM(
        6, 3, 2, (8,), "gaussian", num_classes=4, enumerate_labels=True, **k
    ),
    "SDGM-labels": lambda **k: SDGM(6, 3, 2, (8,), num_classes=4, **k),
    "GaussianMixture-enumerated": lambda **k: GaussianMixture(enumerate_latents=True, **k),
    "HiddenMarkov-categorical": lambda **k: HiddenMarkov(3, "categorical", num_symbols=5, **k),
    "HierarchicalVAE-five": lambda **k: HierarchicalVAE(6, (5, 4, 3, 2, 2), (9,), **k),
    "HierarchicalVAE-one": lambda **k: HierarchicalVAE(6, 3, (9,), "gaussian", **k),
    "LinearCalcium-rising": partial(LinearCalcium, 30.0, rise=True, num_frames=50),
    "LinearCalcium-growing": partial(LinearCalcium, 30.0, noise="growing", num_frames=50),
    "LinearCalcium-relaxed": partial(LinearCalcium, 30.0, spikes="relaxed", num_frames=50),
    "LinearCalcium-white": partial(LinearCalcium, 30.0, drift=False, num_frames=50),
    "LinearGaussianSSM-two-steps": lambda **k: LinearGaussianSSM(2, 1, num_steps=2, **k),
    "VAE-gaussian": lambda **k: VAE(6, 3, (8,), "gaussian", **k),
    "VAE-gaussian-network": lambda **k: VAE(6, 3, (8,), "gaussian", noise="network", **k),
    "VAE-two-layers": lambda **k: VAE(6, (4, 2), [(8,), (7,)], **k),
    "VAE-three-layers": lambda **k: VAE(6, (4, 3, 2), (8,), "gaussian", **k),
    "VAE-own-decoder": lambda **k: VAE(6, 3, decoder=nn.Linear(3, 6), **k),
    "VAE-linear": lambda **k: VAE(6, 3, (), **k),
    "VAE-categorical": lambda **k: VAE(6, 3, (8,), CategoricalLikelihood(6, 4), **k),
    "VAE-negative-binomial": lambda **k: VAE(6, 3, (8,), "negative_binomial", **k),
    "VAE-poisson": lambda **k: VAE(6, 3, (8,), "poisson", **k),
    "VAE-mixed": lambda **k: VAE(6, 3, (8,), mixed(), **k),
    "VAE-prior": lambda **k: VAE(6, (3, 2), (8,), prior=LearnedNormal(2), **k),
    "VAE-prior-aggregated": lambda **k: VAE(6, 3, (8,), prior=AggregatedPrior(*posteriors()), **k),
    "VAE-prior-flow": lambda **k: VAE(6, 3, (8,), prior=ConditionalFlow(3), **k),
    "VAE-prior-mixture": lambda **k: VAE(6, 3, (8,), prior=MixturePrior(3, 4), **k),
    "VAE-prior-semi-implicit": lambda **k: VAE(
        6, 3, (8,), prior=SemiImplicitPrior(ConditionalNormal(4, 3, (5,)), 4), **k
    ),
    "VAE-prior-vamp": lambda **k: VAE(6, 3, (8,), prior=VampPrior(*posteriors()), **k),
    "VAEAC": lambda **k: GivenHalf(VAEAC(**k)),
    "VAEAC-mixed": lambda **k: GivenHalf(VAEAC(6, 3, mixed(), width=8, depth=1, **k)),
    "VAEAC-pictures": lambda **k: GivenHalf(
        VAEAC(25, 3, "bernoulli", encoder=UNet(5, in_channels=2, channels=(4, 5)), **k)
    ),
}
SEQUENCES = {"HiddenMarkov-categorical", *(name for name in VARIANTS if "Calcium" in name)}
ROWS = {name: make for name, make in VARIANTS.items() if name not in SEQUENCES}
every_variant = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
linear_gaussian = pytest.mark.parametrize("model_class", [FactorAnalysis, ProbabilisticPCA])


def test_every_model_is_exported() -> None:
    assert sorted(model.__name__ for model in MODELS) == sorted(pyro_lvm.models.__all__)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(make: Callable[..., Any], dtype: torch.dtype) -> None:
    check_model(make().to(dtype))


@every_variant
def test_minibatch_is_scaled(make: Callable[..., Any]) -> None:
    model = make(num_data=40)
    x = model(size=4).detach()
    trace = pyro.poutine.trace(model).get_trace(x)
    names = {*trace.stochastic_nodes, *trace.observation_nodes} - {"data"}
    assert {float(trace.nodes[name]["scale"]) for name in names} == {10.0}
    with pytest.raises(PlateError, match="num_data: expected at least the batch size 41"):
        model(x[:1].expand(41, *x.shape[1:]))


@every_variant
@pytest.mark.parametrize("wrap", [lambda x: x.double(), lambda x: x.long(), np.asarray])
def test_any_kind_of_number_is_data(make: Callable[..., Any], wrap: Callable[..., Any]) -> None:
    model = make()
    x = model(size=4).detach().round()
    pyro.set_rng_seed(1)
    assert torch.equal(model(wrap(x)), x)


@every_variant
@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x[:0], lambda x: x.unsqueeze(-1)])
def test_data_of_another_shape(make: Callable[..., Any], change: Callable[..., Any]) -> None:
    model = make()
    with pytest.raises(DataError, match="x: expected"):
        model(change(model(size=4)))


@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_data_of_another_number_of_features(make: Callable[..., Any]) -> None:
    model = make()
    x = model(size=4)
    for wrong in (x[..., 1:], torch.cat([x, x], -1)):
        with pytest.raises(DataError, match=r"(?s)x: expected .* Check in_features"):
            model(wrong)


@every_variant
def test_log_probabilities_are_wide_under_autocast(make: Callable[..., Any]) -> None:
    model = make()
    x = model(size=4).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = pyro.poutine.trace(model).get_trace(x)
        trace.compute_log_prob()
    scored = [trace.nodes[name] for name in trace.observation_nodes]
    assert {str(site["log_prob"].dtype) for site in scored} == {"torch.float32"}


@every_variant
def test_the_data_are_sites_named_x(make: Callable[..., Any]) -> None:
    model = make()
    trace = pyro.poutine.trace(model).get_trace(model(size=4))
    observed = [name for name in trace.observation_nodes if name != "hyperprior"]
    steps = [f"x_{t}" for t in range(len(observed))]  # where a step is a site
    assert observed in (["x"], steps)


def test_instances_share_no_parameter_when_local() -> None:
    with pyro.settings.context(module_local_params=True):
        first, second = FactorAnalysis(3, 1), FactorAnalysis(3, 1)
        first.noise_scale = torch.full((3,), 5.0)
        x = torch.zeros(2, 3)
        first(x), second(x)
        assert not list(pyro.get_param_store())
        torch.testing.assert_close(first.noise_scale, torch.full((3,), 5.0))
        torch.testing.assert_close(second.noise_scale, torch.ones(3))


# Linear-Gaussian models against the joint distribution of (z, x), written out.


def _drawn(model_class: Any, features: int = 5, latents: int = 2) -> Any:
    model = model_class(features, latents)
    with torch.no_grad():
        model.loading.normal_()
        model.mean.normal_()
    model.noise_scale = torch.rand(model.noise_scale.shape) + 0.2
    return model


def _joint(model: Any) -> tuple[Tensor, Tensor]:
    latents = model.loading.shape[1]
    noise = torch.diag(model.noise_scale.expand(len(model.mean)) ** 2)
    both = torch.cat([torch.eye(latents), model.loading])
    covariance = both @ both.T
    covariance[latents:, latents:] += noise
    return torch.cat([torch.zeros(latents), model.mean]).detach(), covariance.detach()


@linear_gaussian
def test_exact_evidence_and_posterior(model_class: Any, float64: torch.dtype) -> None:
    model = _drawn(model_class)
    x = model(size=7).detach()
    mean, covariance = _joint(model)
    marginal = dist.MultivariateNormal(mean[2:], covariance[2:, 2:])
    torch.testing.assert_close(model.log_evidence(x), marginal.log_prob(x), rtol=0, atol=1e-10)

    gain = covariance[:2, 2:] @ torch.linalg.inv(covariance[2:, 2:])
    left = covariance[:2, :2] - gain @ covariance[2:, :2]
    posterior = model.posterior(x)
    assert posterior.batch_shape == (7,)
    torch.testing.assert_close(posterior.mean, (x - mean[2:]) @ gain.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(posterior.covariance_matrix[3], left, rtol=0, atol=1e-10)


@linear_gaussian
def test_exact_evidence_keeps_its_digits(model_class: Any) -> None:
    """Little noise: forms of size 1e6 would cancel in float32."""
    model = _drawn(model_class)
    model.noise_scale = torch.full_like(model.noise_scale, 1e-2).detach()
    x = model(size=50).detach()
    narrow = model.log_evidence(x).detach()
    exact = model.double().log_evidence(x.double()).detach()
    torch.testing.assert_close(narrow.double(), exact, rtol=1e-3, atol=1e-2)


@linear_gaussian
def test_prior_predictive_moments(model_class: Any, float64: torch.dtype) -> None:
    model = _drawn(model_class)
    mean, covariance = _joint(model)
    mean, covariance = mean[2:], covariance[2:, 2:]
    size = 20_000
    x = model(size=size).detach()
    variance = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (variance / size).sqrt()).all()
    error = (x.T.cov() - covariance).abs()
    spread = (covariance**2 + variance[:, None] * variance) / size
    assert (error < 5 * spread.sqrt()).all()


def test_maximum_likelihood_is_a_maximum(float64: torch.dtype) -> None:
    x = torch.randn(300, 2) @ torch.randn(2, 5) + 0.3 * torch.randn(300, 5) + 1.0
    model = ProbabilisticPCA.maximum_likelihood(x, latent_features=2)
    best = model.log_evidence(x).mean()
    for gradient in torch.autograd.grad(best, list(model.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)
    torch.testing.assert_close(model.mean, x.mean(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
        assert model.log_evidence(x).mean() < best


def test_maximum_likelihood_takes_the_dtype_of_the_data() -> None:
    model = ProbabilisticPCA.maximum_likelihood(torch.randn(20, 3, dtype=torch.float64), 1)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_maximum_likelihood_needs_noise() -> None:
    with pytest.raises(ProgramError, match=r"latent_features: expected less than 3, got 3"):
        ProbabilisticPCA.maximum_likelihood(torch.randn(9, 3), 3)
    flat = torch.randn(9, 1).expand(9, 3)
    with pytest.raises(DataError, match="x: expected variance left for the noise, got none"):
        ProbabilisticPCA.maximum_likelihood(flat, 1)


# The variational autoencoder.


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
    (lambda: FactorAnalysis(6, 0), r"latent_features: expected an integer >= 1, got 0"),
    (lambda: FactorAnalysis(-6), r"in_features: expected an integer >= 1, got -6"),
    (lambda: ProbabilisticPCA(6, 2, num_data=-1), r"num_data: expected an integer >= 1, got -1"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


# The contract itself: a planted fault is found.


class Model(PyroModule):
    """A right model, for faults to be planted in by overriding its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.scale = PyroParam(torch.ones(3), constraint=dist.constraints.positive)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", self.decode(z).to_event(1), obs=x)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z @ self.weight, self.scale)


class Unused(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z @ self.weight, 1.0)


class Pooled(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal((z - z[..., :1, :]) @ self.weight, self.scale)


class OneParticle(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal((z[-1] if z.dim() > 2 else z) @ self.weight, self.scale)


class Shifted(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return ShiftedNormal(z @ self.weight, self.scale)


class Symbols(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=self.logits(z))

    def logits(self, z: Tensor) -> Tensor:
        return (z @ self.weight)[..., None] * self.scale * torch.arange(3)


class ShiftedSymbols(Symbols):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return ShiftedCategorical(logits=self.logits(z) + torch.arange(3))


NO_SIZE = torch.Size()


class ShiftedCategorical(dist.Categorical):
    def sample(self, sample_shape: torch.Size = NO_SIZE) -> Tensor:
        return (super().sample(sample_shape) + 1) % 3


class ShiftedNormal(dist.Normal):
    def rsample(self, sample_shape: torch.Size = NO_SIZE) -> Tensor:
        return super().rsample(sample_shape) + 0.5


class Forgetful(Model):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        self.calls += 1.0
        return dist.Normal(z @ self.weight, self.scale + self.calls)


@pytest.mark.parametrize("right", [Model, Symbols])
def test_a_right_model_passes(right: type[Model]) -> None:
    check_model(right())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Unused, "parameter 'scale_unconstrained': expected a finite gradient"),
        (Pooled, "permuted data: expected permuted log-probabilities"),
        (OneParticle, "model: expected the same for each particle alone"),
        (Shifted, "prior-predictive mean of 'x': expected the distribution's"),
        (ShiftedSymbols, "prior-predictive mean of 'x': expected the distribution's"),
        (Forgetful, "expected the same for each particle alone"),
    ],
)
def test_a_planted_fault_is_found(fault: type[Model], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(fault())


class Deaf(Model):
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        return super().forward(size=size if x is None else len(x))


class Mute(Model):
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> None:  # type: ignore[override]
        super().forward(x, size=size)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Deaf, r"model: expected a site that observes x, got \['x', 'z'\]"),
        (Mute, "model: expected 6 data returned, got None"),
    ],
)
def test_a_model_that_does_not_pass_on_its_data_is_found(fault: type[Model], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(fault())


def test_strong_factors_in_single_precision() -> None:
    """Rounding leaves the posterior's precision asymmetric beyond what torch takes for granted."""
    x = torch.randn(500, 6) @ torch.randn(6, 60) + 0.3 * torch.randn(500, 60)
    model = ProbabilisticPCA.maximum_likelihood(x, 6)
    double = ProbabilisticPCA.maximum_likelihood(x.double(), 6)
    single_mean, double_mean = model.posterior(x).mean, double.posterior(x.double()).mean
    assert single_mean.isfinite().all()
    # Factors are known up to their signs; x'x loses half of float32's 7 digits.
    torch.testing.assert_close(single_mean.abs(), double_mean.abs().float(), atol=0.02, rtol=0)
