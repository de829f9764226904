"""Guide families: one contract for all, exact where the posterior is in the family."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyro_lvm.guides
from pyro_lvm.errors import DataError, PlateError, ProgramError
from pyro_lvm.guides import (
    AmortizedFlow,
    AmortizedNormal,
    AutoregressiveGuide,
    ConditioningGuide,
    DendriticSpikeGuide,
    GibbsConditionals,
    GibbsGuide,
    HierarchicalNormal,
    ImplicitGuide,
    ImplicitWeights,
    KernelPosterior,
    LadderNormal,
    MixtureWeights,
    NormalWeights,
    SemiAmortized,
    SemiImplicitGuide,
    SemiImplicitWeights,
    SpikeGuide,
    WithoutLabels,
)
from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.models import VAE, FactorAnalysis
from pyro_lvm.nn import TopDown
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.testing import ContractError, check_guide, discover

GUIDES = discover("pyro_lvm.guides")
OF_OTHER_DATA = {
    DendriticSpikeGuide,
    GibbsConditionals,
    GibbsGuide,
    ImplicitWeights,
    KernelPosterior,
    MixtureWeights,
    NormalWeights,
    SemiImplicitWeights,
    SpikeGuide,
}
TWO = {"z1": 3, "z2": 2}


def semi_amortized(**options: Any) -> SemiAmortized:
    """The one guide that has no default: it refines itself under a model."""
    model = FactorAnalysis(64, 16)
    allow_local_parameters(model)
    return SemiAmortized(model, **options)


VARIANTS: dict[str, Callable[..., Any]] = {
    **{guide.__name__: guide for guide in GUIDES if guide not in OF_OTHER_DATA},
    "SemiAmortized": semi_amortized,
    "LadderNormal": lambda **k: LadderNormal(TopDown((4, 3, 2), hidden=(9,)), hidden=(9,), **k),
    "WithoutLabels": lambda **k: WithoutLabels(AmortizedNormal(**k)),
    "low_rank": lambda **k: AmortizedNormal(covariance="low_rank", rank=2, **k),
    "full": lambda **k: AmortizedNormal(latent_features=5, covariance="full", **k),
    "full-one-dim": lambda **k: AmortizedNormal(latent_features=1, covariance="full", **k),
    "two-sites": lambda **k: AmortizedNormal(latent_features=TWO, covariance="full", **k),
    "linear": lambda **k: AmortizedNormal(hidden=(), latent_features=2, **k),
    "three-layers": lambda **k: HierarchicalNormal(latent_features=(4, 3, 2), hidden=(9,), **k),
    "one-layer": lambda **k: HierarchicalNormal(latent_features=3, hidden=(9,), **k),
    "autoregressive-vectors": lambda **k: AutoregressiveGuide(num_steps=3, latent_features=2, **k),
    "autoregressive-sites": lambda **k: AutoregressiveGuide(
        num_steps=3, site="z_{}", latent_features=2, **k
    ),
    "conditioning-full": lambda **k: ConditioningGuide(latent_features=3, covariance="full", **k),
    "implicit-basis": lambda **k: ImplicitGuide(noise="basis", **k),
    "implicit-sites": lambda **k: ImplicitGuide(latent_features=TWO, **k),
    "implicit-basis-sites": lambda **k: ImplicitGuide(latent_features=TWO, noise="basis", **k),
    "semi-implicit-low-rank": lambda **k: SemiImplicitGuide(conditional="low_rank", **k),
    "semi-implicit-flow": lambda **k: SemiImplicitGuide(
        conditional="maf", latent_features=3, num_transforms=1, **k
    ),
    "semi-implicit-layers": lambda **k: SemiImplicitGuide(
        noise="bernoulli", noise_features=(5, 4, 3), noise_hidden=(20,), **k
    ),
    "semi-implicit-sites": lambda **k: SemiImplicitGuide(latent_features=TWO, **k),
    "own-encoder": lambda **k: AmortizedNormal(nn.Linear(64, 7), encoder_features=7, **k),
    "own-encoder-autoregressive": lambda **k: AutoregressiveGuide(
        nn.Linear(64, 7), encoder_features=7, num_steps=3, **k
    ),
    "own-encoder-conditioning": lambda **k: ConditioningGuide(
        nn.Linear(192, 7), encoder_features=7, **k
    ),
    "own-encoder-flow": lambda **k: AmortizedFlow(nn.Linear(64, 7), encoder_features=7, **k),
    "own-encoder-hierarchical": lambda **k: HierarchicalNormal(
        nn.Linear(64, 7), encoder_features=7, **k
    ),
    "own-encoder-implicit": lambda **k: ImplicitGuide(nn.Linear(64, 7), encoder_features=7, **k),
    "own-encoder-semi-implicit": lambda **k: SemiImplicitGuide(
        nn.Linear(64, 7), encoder_features=7, **k
    ),
}
WITHOUT_DENSITY = {
    n for n in VARIANTS if n.lower().removeprefix("own-encoder-").startswith("implicit")
}
with_density = pytest.mark.parametrize(
    "make", [v for n, v in VARIANTS.items() if n not in WITHOUT_DENSITY]
)
every_variant = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
default_encoders = pytest.mark.parametrize(
    "make", [v for n, v in VARIANTS.items() if not n.startswith("own")]
)


def test_every_guide_is_exported() -> None:
    assert sorted(guide.__name__ for guide in GUIDES) == sorted(pyro_lvm.guides.__all__)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(make: Callable[..., Any], dtype: torch.dtype) -> None:
    check_guide(make().to(dtype), torch.rand(4, 64, dtype=dtype))


@every_variant
def test_contract_of_a_minibatch(make: Callable[..., Any]) -> None:
    check_guide(make(num_data=40), torch.rand(4, 64), num_draws=500)


@every_variant
def test_any_kind_of_number_is_data(make: Callable[..., Any]) -> None:
    guide, x = make(), torch.ones(4, 64)
    drawn = []
    for data in (x, x.double(), x.double().numpy(force=True), x.tolist()):
        pyro.set_rng_seed(1)
        drawn.append(guide(data))
    for values in drawn[1:]:
        torch.testing.assert_close(values, drawn[0])


@default_encoders
@pytest.mark.parametrize("shape", [(64,), (4, 65), (4, 8, 8), (0, 64)])
def test_data_of_another_shape(make: Callable[..., Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="x: expected"):
        make()(torch.zeros(shape))


@default_encoders
def test_integers_are_converted(make: Callable[..., Any]) -> None:
    assert make()(np.ones((4, 64), dtype=np.uint8))


@every_variant
def test_draws_are_wide_under_autocast(make: Callable[..., Any]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        draws = make()(torch.rand(4, 64))
    assert {draw.dtype for draw in draws.values()} == {torch.float32}


@with_density
def test_densities_are_wide_under_autocast(make: Callable[..., Any]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = pyro.poutine.trace(make()).get_trace(torch.rand(4, 64))
        trace.compute_log_prob()
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    assert {s["log_prob"].dtype for s in sites if s["name"] != "data"} == {torch.float32}


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("size", [1, 4])
def test_normals_use_all_of_their_outputs(covariance: str, size: int, float64: Any) -> None:
    family = COVARIANCES[covariance]
    raw = torch.randn(3, family.num_outputs(size, 2), requires_grad=True)
    normal = family.normal(raw, size, 2)
    assert (normal.batch_shape, normal.event_shape) == ((3,), (size,))
    matrix = normal.covariance_matrix if covariance != "diagonal" else normal.variance.diag_embed()
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    (gradient,) = torch.autograd.grad(normal.log_prob(torch.zeros(size)).sum(), raw)
    assert (gradient != 0).all()
    off_diagonal = (matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))).abs().sum()
    assert bool(off_diagonal > 0) == (covariance != "diagonal" and size > 1)


def test_linear_full_guide_can_be_the_exact_posterior(float64: torch.dtype) -> None:
    model = FactorAnalysis(5, 3)
    x = model(size=6).detach()
    guide = AmortizedNormal(in_features=5, latent_features=3, hidden=(), covariance="full")
    origin, unit = model.posterior(torch.zeros(1, 5)), model.posterior(torch.eye(5))
    tril = origin.scale_tril[0]
    below = tril[tuple(torch.tril_indices(3, 3, -1))]
    scale = torch.log(torch.expm1(tril.diagonal() - 1e-6))
    layer = guide.encoding.head.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:3] = (unit.mean - origin.mean).T
        layer.bias.copy_(torch.cat([origin.mean[0], scale, below]))
    for objective in (ELBO(), IWAE(num_particles=5)):
        bound = objective.bound(model, guide, x)
        torch.testing.assert_close(bound, model.log_evidence(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_particles", [1, 5])
def test_encoder_runs_once_a_call(num_particles: int) -> None:
    model, guide = VAE(64, (3, 2)), AmortizedNormal(latent_features=TWO)
    rows: list[tuple[int, ...]] = []
    guide.encoding.encoder.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    objective = IWAE(num_particles=num_particles, max_plate_nesting=1)
    objective.loss_and_grads(model, guide, model(size=4).detach())
    assert rows == [(4, 200)]


def test_posterior_is_what_forward_draws_from() -> None:
    guide, x = AmortizedNormal(latent_features=TWO, covariance="low_rank"), torch.rand(4, 64)
    sites = pyro.poutine.trace(guide).get_trace(x).nodes
    for name, normal in guide.posterior(x).items():
        value = sites[name]["value"]
        torch.testing.assert_close(normal.log_prob(value), sites[name]["fn"].log_prob(value))
        assert normal.event_shape == (TWO[name],)


def test_upper_layers_read_the_layer_below() -> None:
    guide, x = HierarchicalNormal(latent_features=(3, 2), hidden=(9,)), torch.rand(4, 64)
    means = []
    for z1 in (torch.zeros(4, 3), torch.ones(4, 3)):
        held = pyro.condition(guide, data={"z1": z1})
        means.append(pyro.poutine.trace(held).get_trace(x).nodes["z2"]["fn"].mean)
    assert (means[0] != means[1]).all()


def test_encoder_of_pictures_and_of_indices() -> None:
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    pictures = AmortizedNormal(convolution, encoder_features=72, latent_features=3)
    assert pictures(torch.rand(5, 1, 8, 8, dtype=torch.float64))["z"].shape == (5, 3)
    words = AmortizedNormal(nn.EmbeddingBag(10, 4), encoder_features=4, latent_features=3)
    assert words(torch.ones(5, 7, dtype=torch.long))["z"].shape == (5, 3)


def test_num_data_must_be_the_models() -> None:
    model, guide = VAE(64, 16, num_data=50), AmortizedNormal(num_data=40)
    with pytest.raises(PlateError, match=r"plate 'data'.*50 in the model and 40 in the guide"):
        ELBO().loss(model, guide, torch.ones(4, 64))


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (VAE(), AmortizedNormal()),
        (VAE(latent_features=(16, 8)), HierarchicalNormal()),
        (VAE(latent_features=(3, 2)), AmortizedNormal(latent_features=TWO)),
        (FactorAnalysis(latent_features=16), AmortizedNormal(covariance="full")),
    ],
    ids=lambda program: type(program).__name__,
)
def test_contract_with_a_model_of_the_package(model: Any, guide: Any) -> None:
    check_guide(guide, model(size=4).detach(), model, num_draws=500)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: AmortizedNormal(in_features=0), r"in_features: expected an integer >= 1, got 0"),
    (lambda: AmortizedNormal(latent_features=-1), r"latent_features of 'z': .* got -1"),
    (lambda: AmortizedNormal(latent_features={"a": 0}), r"latent_features of 'a': .* got 0"),
    (lambda: AmortizedNormal(covariance="dense"), r"covariance: expected one of .* got 'dense'"),
    (lambda: AmortizedNormal(covariance="low_rank", rank=0), r"rank: expected .* got 0"),
    (lambda: AmortizedNormal(hidden=(0,)), r"hidden: expected an integer >= 1, got 0"),
    (lambda: AmortizedNormal(num_data=0), r"num_data: expected an integer >= 1, got 0"),
    (lambda: AmortizedNormal(nn.Identity()), r"encoder_features: expected a size, .* got None"),
    (lambda: AmortizedNormal(encoder_features=3), r"expected None, got 3 without an encoder"),
    (lambda: HierarchicalNormal(latent_features=(3, 0)), r"latent_features of 'z2': .* got 0"),
    (lambda: HierarchicalNormal(hidden=[(3,)]), r"hidden: .* each of 2 stochastic layers"),
    (lambda: HierarchicalNormal(nn.Identity()), r"encoder_features: expected a size"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


def test_encoder_of_another_output_size() -> None:
    guide = AmortizedNormal(nn.Linear(64, 7), encoder_features=8)
    with pytest.raises(DataError, match=r"encoder Linear: .* \(4, 8\), got \(4, 7\)"):
        guide(torch.rand(4, 64))


# The contract itself: a planted fault is found.


class Guide(PyroModule):
    """A right guide, for faults to be planted in by overriding its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.normal(*self.linear(x).chunk(2, -1)).to_event(1))

    def normal(self, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc, raw.exp())


class Unused(Guide):
    def normal(self, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc.detach(), raw.detach().exp())


class Pooled(Guide):
    def normal(self, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc - loc[:1], raw.exp())


NO_SIZE = torch.Size()


class NarrowNormal(dist.Normal):
    def rsample(self, sample_shape: torch.Size = NO_SIZE) -> Tensor:
        return self.loc + 0.9 * (super().rsample(sample_shape) - self.loc)


class Narrow(Guide):
    def normal(self, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        return NarrowNormal(loc, raw.exp())


def test_a_right_guide_passes() -> None:
    check_guide(Guide(), torch.randn(4, 3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Unused, "parameter 'linear.weight': expected a finite gradient"),
        (Pooled, "permuted data: expected permuted log-probabilities"),
        (Narrow, "draws of site 'z': expected that of their distribution, got mean ratio"),
    ],
)
def test_a_planted_fault_is_found(fault: type[Guide], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_guide(fault(), torch.randn(4, 3))
