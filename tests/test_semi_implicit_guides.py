"""Semi-implicit guides: exact where their noise is a few coins, which can be enumerated."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from moved import moved
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SemiImplicitGuide, SemiImplicitWeights
from pyro_lvm.guides.mixing_layers import MixingLayers
from pyro_lvm.models import VAE, BayesianLogisticRegression
from pyro_lvm.objectives import DSIVI, SIVI

MAX_Z = 5.0  # standard errors
COINS = {"noise": "bernoulli", "noise_features": (2, 1), "noise_hidden": (6, 4)}
KINDS = ["diagonal", "low_rank", "full", "maf", "nsf", "iaf"]

pytestmark = pytest.mark.usefixtures("float64")


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def amortized(conditional: str = "diagonal", **options: Any) -> SemiImplicitGuide:
    return SemiImplicitGuide(
        in_features=2,
        latent_features=2,
        hidden=(5,),
        context_features=4,
        flow_hidden=(4,),
        conditional=conditional,
        **options,
    )


def spread(guide: nn.Module) -> nn.Module:
    """Make what the noise does large, so that its components lie apart."""
    return moved(guide, 0.6)


def enumerated(guide: Callable[..., Any], z: Tensor, x: Tensor) -> Tensor:
    """log q(z | x) ``(K, B)`` of a guide with three fair coins, by all eight outcomes."""
    terms = []
    for outcome in product([0.0, 1.0], repeat=3):
        first, second = torch.tensor(outcome).split([2, 1])
        held = {"noise1": first.expand(len(x), 2), "noise2": second.expand(len(x), 1), "z": z}
        site = pyro.poutine.trace(pyro.condition(guide, held)).get_trace(x).nodes["z"]
        terms.append(site["fn"].log_prob(z))
    return torch.stack(terms).logsumexp(0) - torch.tensor(8.0).log()


@pytest.mark.parametrize("kind", KINDS)
def test_density_of_coins_by_enumeration(kind: str) -> None:
    guide, x = spread(amortized(kind, **COINS)), torch.randn(15, 2)
    objective = SIVI(5, num_mixing=1000)
    found: Any = objective.particles(model, guide, x)
    with torch.no_grad():
        exact = enumerated(guide, found.values["z"], x)
    for side in (found.log_guide.lower, found.log_guide.upper):
        error = side - exact
        limit = MAX_Z * error.std() / error.numel() ** 0.5 + 2e-3  # (8 - 1) / 2 / 1000 at most
        assert error.mean().abs() < limit
        assert error.std() < 0.5 * (found.log_guide.own - exact).std()  # it is a mixture


def test_encoder_runs_once_and_noise_in_rows() -> None:
    guide, x = amortized(noise_features=(3, 2), noise_hidden=(6,)), torch.randn(7, 2)
    seen: dict[str, tuple[int, ...]] = {}

    def look(name: str) -> Callable[..., None]:
        return lambda module, args, output: seen.update({name: tuple(output.shape)})

    guide.encoding.register_forward_hook(look("encoder"))
    guide.mixing.register_forward_hook(look("mixing"))
    SIVI(5, num_mixing=10, max_plate_nesting=1).loss(model, guide, x)
    assert seen == {"encoder": (7, 4), "mixing": (11, 5, 7, 6)}
    SIVI(5, num_mixing=10, share_mixing=True, max_plate_nesting=1).loss(model, guide, x)
    assert seen == {"encoder": (7, 4), "mixing": (15, 1, 7, 6)}


def test_layers_are_mlps_of_joined_vectors() -> None:
    layers = MixingLayers(4, (3, 2), (6, 5))
    context = torch.randn(7, 4)
    noise = {"noise1": torch.randn(11, 7, 3), "noise2": torch.randn(11, 7, 2)}
    found = pyro.condition(layers, noise)(context)

    def by_hand(layer: Any, *parts: Tensor) -> Tensor:
        joint = torch.cat([part.expand(11, 7, -1) for part in parts], -1)
        return layer.rest(layer.entry(joint).tanh())

    first, second = layers.layers
    below = by_hand(first, context, noise["noise1"])
    torch.testing.assert_close(found, by_hand(second, context, below, noise["noise2"]))


def test_sites_and_draws() -> None:
    guide = amortized(noise_features=(3, 2))
    trace = pyro.poutine.trace(guide).get_trace(torch.zeros(4, 2))
    assert trace.stochastic_nodes == ["data", "noise1", "noise2", "z"]
    assert [n for n in trace.stochastic_nodes if trace.nodes[n]["infer"].get("is_auxiliary")] == [
        "noise1",
        "noise2",
    ]
    assert {name: draw.shape for name, draw in guide(torch.zeros(4, 2)).items()} == {"z": (4, 2)}


def test_sites_are_dependent_through_the_noise() -> None:
    guide = spread(SemiImplicitWeights({"a": 1, "b": 1}, noise_features=1, noise_hidden=(4,)))
    with torch.no_grad(), pyro.plate("draws", 100_000):
        draws = guide()
    both = torch.cat([draws["a"], draws["b"]], -1)
    assert both.T.corrcoef()[0, 1].abs() > 0.02  # 6 standard errors of independent draws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [False, True])
def test_weights_of_a_regression(kind: str, share: bool) -> None:
    regression = BayesianLogisticRegression(3)
    guide = SemiImplicitWeights({"weights": 3}, conditional=kind, num_transforms=1)
    x = torch.randn(20, 3)
    y = (x[:, 0] > 0).double()
    objective = SIVI(4, num_mixing=6, share_mixing=share)
    assert objective.log_weights(regression, guide, x, y).shape == (4,)
    objective(regression, guide)(x, y).backward()
    for name, parameter in guide.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_plate_around_both_programs_gives_a_bound_a_draw() -> None:
    def repeated(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Tensor) -> None:
            with pyro.plate("draws", 50, dim=-2):
                program(*args)

        return run

    regression, guide = BayesianLogisticRegression(3), SemiImplicitWeights({"weights": 3})
    x = torch.randn(20, 3)
    y = (x[:, 0] > 0).double()
    bound = SIVI(num_mixing=10).bound(repeated(regression), repeated(guide), x, y)
    assert bound.flatten().shape == (50,)
    alone = torch.stack([SIVI(num_mixing=10).bound(regression, guide, x, y) for _ in range(300)])
    error = (bound.var() / 50 + alone.var() / 300) ** 0.5
    assert abs(bound.mean() - alone.mean()) < MAX_Z * error


@pytest.mark.slow
def test_two_modes_are_found() -> None:
    """x = z^2 + noise at x = 3: the best Normal is 0.750 nats from the posterior."""

    def square(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z**2, 1.0).to_event(1), obs=x)

    x, grid = torch.full((32, 1), 3.0), torch.linspace(-6, 6, 4001)
    joint = dist.Normal(0, 1).log_prob(grid) + dist.Normal(grid**2, 1.0).log_prob(x[0])
    exact = joint.logsumexp(0) + (grid[1] - grid[0]).log()
    guide = SemiImplicitGuide(
        in_features=1, latent_features=1, hidden=(), noise_features=3, noise_hidden=(20, 20)
    )
    objective = SIVI(num_mixing=20)(square, guide)
    adam = torch.optim.Adam(guide.parameters(), lr=1e-2)
    for _ in range(400):
        adam.zero_grad()
        objective(x).backward()
        adam.step()
    lower, upper = DSIVI.sandwich(square, guide, x, num_mixing=500)
    assert exact - lower.mean() < 0.2  # 0.03 to 0.12 over four seeds
    assert lower.mean() <= upper.mean() < exact


@pytest.mark.parametrize(
    ("options", "where", "expected", "found"),
    [
        ({"noise": "uniform"}, "noise", "['normal', 'bernoulli']", "'uniform'"),
        ({"noise_features": 0}, "noise_features", "an integer >= 1", "0"),
        ({"noise_features": ()}, "noise_features", "an integer >= 1", "0"),
        ({"noise_features": (3, -1)}, "noise_features", "an integer >= 1", "-1"),
        ({"noise_hidden": ()}, "noise_hidden", "an integer >= 1", "0"),
        ({"noise_features": (3, 2), "noise_hidden": [(4,)]}, "hidden", "each of 2", "[(4,)]"),
        ({"conditional": "dense"}, "conditional", "'diagonal'", "'dense'"),
        ({"latent_features": 0}, "latent_features of 'z'", "an integer >= 1", "0"),
        ({"conditional": "low_rank", "rank": 0}, "rank", "an integer >= 1", "0"),
    ],
)
@pytest.mark.parametrize("guide", [SemiImplicitGuide, SemiImplicitWeights])
def test_wrong_arguments(guide: Any, options: Any, where: str, expected: str, found: str) -> None:
    with explained(ProgramError, where, expected, found, ""):
        guide(**options)


def test_a_vae_trains() -> None:
    generative, x = VAE(6, 2, (8,)), torch.rand(5, 6).round()
    guide = SemiImplicitGuide(in_features=6, latent_features=2, hidden=(8,))
    SIVI(2, num_mixing=3)(generative, guide)(x).backward()
    assert all(p.grad is not None for p in [*guide.parameters(), *generative.parameters()])
