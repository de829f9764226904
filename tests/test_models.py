"""Generative models: one contract for all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import nn
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
from pyro_lvm.errors import DataError, PlateError
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
    SupervisedVAE,
)
from pyro_lvm.models.cell_parameters import CellParameters
from pyro_lvm.nn import ConditionalNormal, UNet
from pyro_lvm.testing import check_model, discover

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
