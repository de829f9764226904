"""Every model and guide on the device asked for, where no default device is set."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import test_guides
import test_models
import torch
from second_device import check_same
from torch import Tensor, nn

from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.guides import (
    AmortizedNormal,
    DendriticSpikeGuide,
    ImplicitWeights,
    KernelEncoder,
    KernelPosterior,
    MixtureWeights,
    NormalWeights,
    SemiImplicitWeights,
    SpikeGuide,
    StructuredGuide,
)
from pyro_lvm.models import (
    VAE,
    BayesianConvNet,
    BayesianLinearRegression,
    BayesianLogisticRegression,
    BayesianLSTM,
    BayesianMLP,
    DendriticCalcium,
    IdentifiableVAE,
    LinearCalcium,
    NormalizingFlow,
)
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AAE, ELBO, SIVI
from pyro_lvm.testing import check_guide

Make = Callable[..., Any]
Case = tuple[Objective, Any, Any, list[Tensor]]
FEATURES, SIZE = 3, 4


def scored(program: nn.Module, *args: Any) -> list[Tensor]:
    """What a program draws, its log-probability, and the gradient of both."""
    trace = pyro.poutine.trace(program).get_trace(*args)
    sites = [trace.nodes[n] for n in (*trace.stochastic_nodes, *trace.observation_nodes)]
    sites = [site for site in sites if isinstance(site["value"], Tensor) and site["name"] != "data"]
    log_probs = [s["fn"].log_prob(s["value"]).sum() for s in sites if not is_implicit(s["fn"])]
    total = sum([site["value"].double().sum() for site in sites] + log_probs)
    parameters = [p for p in program.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [total, *(gradient for gradient in gradients if gradient is not None)]


def drawn_and_scored(make: Make, device: torch.device) -> list[Tensor]:
    model = make().to(device)
    x = model(size=SIZE).detach()
    evidence = [model.log_evidence(x)] if hasattr(model, "log_evidence") else []
    return [x, *evidence, *scored(model, x)]


def of_rows(make: Make, device: torch.device) -> list[Tensor]:
    return scored(make().to(device), torch.rand(SIZE, 64).to(device))


MODELS: dict[str, Make] = {
    **test_models.VARIANTS,
    "NormalizingFlow": lambda: NormalizingFlow(FEATURES, num_transforms=1, hidden=(4,)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_model(make: Make, device: torch.device) -> None:
    check_same(partial(drawn_and_scored, make), device)


@pytest.mark.parametrize("make", test_guides.VARIANTS.values(), ids=test_guides.VARIANTS)
def test_every_guide(make: Make, device: torch.device) -> None:
    check_same(partial(of_rows, make), device)


# Of data of another kind, or of all data together.


def with_weights(objective: Objective, guide: Callable[[BayesianMLP], Any]) -> Case:
    model, x = BayesianMLP(FEATURES, (4,)), torch.rand(SIZE, FEATURES)
    return objective, model, guide(model), [x, x.sum(1)]


def with_critic() -> Case:
    objective = AAE(Discriminator(22, hidden=(8,)), 2)
    return with_weights(objective, lambda model: ImplicitWeights(model.latent_features))


def with_kernels() -> Case:
    encoder = KernelEncoder(9, 2, (8,))
    prior = VAE(9, 2, (8,), "gaussian", noise="network")
    model = BayesianConvNet(8, channels=(2, 3), kernel_sizes=(3, 2), priors=[prior, None])
    guide = KernelPosterior([torch.zeros(2, 9), torch.zeros(6, 4)], [encoder.reverse, None])
    return ELBO(2), model, guide, [torch.rand(SIZE, 64), torch.arange(SIZE)]


def of_sequences() -> Case:
    model = BayesianLSTM(FEATURES, 4, 5)
    x, y = torch.rand(SIZE, 6, FEATURES), torch.arange(SIZE)
    return ELBO(2), model, NormalWeights(model.starts()), [x, y]


def of_classes() -> Case:
    model, x = BayesianLogisticRegression(FEATURES), torch.rand(SIZE, FEATURES)
    guide = NormalWeights({"weights": torch.zeros(FEATURES)}, covariance="full")
    return ELBO(2), model, guide, [x, (x.sum(1) > 1.5).double()]


def of_segments() -> Case:
    guide = StructuredGuide(in_features=6, latent_features=2)
    return (
        ELBO(2),
        IdentifiableVAE(4, 2, 2),
        guide,
        [torch.rand(SIZE, 4), torch.eye(2)[[0, 1, 1, 0]]],
    )


def of_spikes() -> Case:
    model = LinearCalcium(30.0, num_frames=20, spikes="relaxed")
    return ELBO(2), model, SpikeGuide(rate=30.0, posterior="relaxed"), [torch.rand(SIZE, 20)]


def of_dendrites() -> Case:
    model = DendriticCalcium(30.0, num_spines=2, num_frames=20)
    guide = DendriticSpikeGuide(rate=30.0, posterior="autoregressive")
    return ELBO(2, "score"), model, guide, [torch.rand(SIZE, 3, 20)]


OTHERS: dict[str, Callable[[], Case]] = {
    "ImplicitWeights": with_critic,
    "MixtureWeights": lambda: with_weights(ELBO(2), lambda model: MixtureWeights(model.starts())),
    "NormalWeights": lambda: with_weights(ELBO(2), lambda model: NormalWeights(model.starts())),
    "SemiImplicitWeights": lambda: with_weights(
        SIVI(2, num_mixing=2), lambda model: SemiImplicitWeights(model.latent_features)
    ),
    "KernelPosterior": with_kernels,
    "BayesianLSTM": of_sequences,
    "BayesianLogisticRegression": of_classes,
    "IdentifiableVAE": of_segments,
    "SpikeGuide": of_spikes,
    "DendriticSpikeGuide": of_dendrites,
}


def trained(make: Callable[[], Case], device: torch.device) -> list[Tensor]:
    """A loss and its gradients."""
    objective, model, guide, data = make()
    loss: Any = objective(model, guide).to(device)
    value = loss(*(part.to(device) for part in data))
    value.backward()
    return [value.detach(), *(p.grad for p in loss.parameters() if p.grad is not None)]


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_all_others(make: Callable[[], Case], device: torch.device) -> None:
    check_same(partial(trained, make), device)


def exact(device: torch.device) -> list[Tensor]:
    model, x = BayesianLinearRegression(FEATURES).to(device), torch.rand(SIZE, FEATURES).to(device)
    bound = ELBO(2).bound(model, model.exact_guide, x, x.sum(1))
    return [model.log_evidence(x, x.sum(1)), bound]


def test_exact_evidence(device: torch.device) -> None:
    check_same(exact, device)


def test_indices_of_a_plate_may_be_on_the_cpu(device: torch.device) -> None:
    torch.set_default_device(None)
    guide = AmortizedNormal(in_features=FEATURES, latent_features=2, num_data=10 * SIZE)
    check_guide(guide.to(device), torch.rand(SIZE, FEATURES).to(device), num_draws=500)
