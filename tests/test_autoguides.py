"""Pyro's automatic guides under every objective and gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from pyro.infer import autoguide as auto
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, Renyi

pytestmark = pytest.mark.usefixtures("float64")

X = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64).reshape(3, 2)


def hierarchy(x: Tensor) -> None:
    """A constrained global latent, a local one and data in two nested plates."""
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(3.0), 2.0))
    with pyro.plate("rows", x.shape[0], dim=-2):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("columns", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)


def listed(model: Callable[..., None]) -> auto.AutoGuideList:
    guide = auto.AutoGuideList(model)
    guide.append(auto.AutoNormal(poutine.block(model, expose=["loc"])))
    guide.append(auto.AutoDiagonalNormal(poutine.block(model, expose=["scale"])))
    return guide


GUIDES: dict[str, Callable[..., Any]] = {
    "AutoNormal": auto.AutoNormal,
    "AutoDiagonalNormal": auto.AutoDiagonalNormal,
    "AutoMultivariateNormal": auto.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": partial(auto.AutoLowRankMultivariateNormal, rank=2),
    "AutoIAFNormal": partial(auto.AutoIAFNormal, hidden_dim=[8]),
    "AutoStructured": partial(
        auto.AutoStructured,
        conditionals={"scale": "normal", "loc": "normal"},
        dependencies={"loc": {"scale": "linear"}},
    ),
    "AutoGuideList": listed,
    "AutoDelta": auto.AutoDelta,
}
ONE_LEVEL = [name for name in GUIDES if name not in ("AutoStructured", "AutoDelta")]
OBJECTIVES = [
    ELBO(4),
    ELBO(4, "stl"),
    ELBO(4, "dreg"),
    IWAE(4),
    IWAE(4, "dreg"),
    IWAE(4, "vimco"),
    Renyi(4, alpha=0.5),
    Renyi(4, "dreg", alpha=0.5),
]


def built(name: str) -> Any:
    guide = GUIDES[name](hierarchy)
    guide(X)
    return guide


def gradient(objective: Objective, guide: Any) -> Tensor:
    """One draw of the loss's gradient in all parameters, flat."""
    guide.zero_grad()
    objective.differentiable_loss(hierarchy, guide, X).backward()
    return torch.cat([p.grad.flatten() for p in guide.parameters() if p.grad is not None])


def reached(objective: Any, guide: Any) -> set[str]:
    """The parameters that one draw gives a gradient; all gradients are finite."""
    assert bool(torch.isfinite(gradient(objective, guide)).all())
    named = guide.named_parameters()
    return {name for name, p in named if p.grad is not None and bool((p.grad != 0).any())}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__}-{o.gradient}")
@pytest.mark.parametrize("name", ONE_LEVEL)
def test_gradients_reach_what_pyros_reach(name: str, objective: Objective) -> None:
    guide = built(name)
    assert reached(objective, guide) == reached(Trace_ELBO(), guide)


VECTORISED = {"num_particles": 4, "max_plate_nesting": 2, "vectorize_particles": True}
TWINS = {
    "elbo": (ELBO(4), Trace_ELBO(**VECTORISED)),
    "iwae": (IWAE(4), RenyiELBO(alpha=0.0, **VECTORISED)),
    "renyi": (Renyi(4, alpha=0.5), RenyiELBO(alpha=0.5, **VECTORISED)),
}


@pytest.mark.parametrize("twins", TWINS)
@pytest.mark.parametrize("name", GUIDES)
def test_loss_and_gradient_are_pyros_on_all_data(name: str, twins: str) -> None:
    """Without a scale and without discrete sites Pyro is right; the draws are the same."""
    guide, results = built(name), []
    for objective in TWINS[twins]:
        guide.zero_grad()
        pyro.set_rng_seed(1)
        loss = torch.tensor(objective.loss_and_grads(hierarchy, guide, X))
        results.append([loss, *(p.grad.clone() for p in guide.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", [name for name in GUIDES if name != "AutoDelta"])
def test_bound_rises_with_particles(name: str) -> None:
    guide = built(name)
    small, large = ELBO(1000), IWAE(1000)
    assert large.bound(hierarchy, guide, X) > small.bound(hierarchy, guide, X) + 0.01


PAIRS = {
    "elbo-stl": (ELBO(8), ELBO(8, "stl")),
    "iwae-dreg": (IWAE(8), IWAE(8, "dreg")),
    "renyi-dreg": (Renyi(8, alpha=0.5), Renyi(8, "dreg", alpha=0.5)),
}


@pytest.mark.parametrize(
    ("name", "pair"),
    [("AutoMultivariateNormal", pair) for pair in PAIRS] + [("AutoIAFNormal", "iwae-dreg")],
)
def test_reduced_gradients_have_the_plain_mean(name: str, pair: str) -> None:
    """4.5 standard errors: about 150 entries are compared in all."""
    guide = built(name)
    draws = [torch.stack([gradient(o, guide) for _ in range(80)]) for o in PAIRS[pair]]
    (a, b), (va, vb) = [d.mean(0) for d in draws], [d.var(0) / len(d) for d in draws]
    assert bool(((a - b).abs() < 4.5 * (va + vb).sqrt() + 1e-9).all()), (a, b, (va + vb).sqrt())


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("AutoStructured", ELBO(4, "stl")),
        ("AutoStructured", IWAE(4, "dreg")),
        ("AutoDelta", IWAE(4, "dreg")),
    ],
)
def test_parameters_in_a_delta_have_no_path_derivative(name: str, objective: Objective) -> None:
    """These guides shift or scale their draws inside a Delta: no log q at fixed values exists."""
    guide = built(name)
    with pytest.raises(ProgramError, match=r"site '(scale|loc)': (?s:.)*gradient='reparam'"):
        objective.loss_and_grads(hierarchy, guide, X)


@pytest.mark.parametrize("name", ["AutoNormal", "AutoMultivariateNormal"])
def test_autoguide_learns_a_conjugate_posterior(name: str) -> None:
    """Prior N(0, 1), five data of unit noise: the posterior is N(sum / 6, 1 / 6)."""
    x = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])

    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = GUIDES[name](model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), ELBO(8, "stl"))
    for _ in range(250):
        svi.step(x)
    z = ELBO(20_000).particles(model, guide, x).values["z"]
    # "stl" is without noise at the posterior: over seeds Adam ends within half of these.
    assert z.mean().item() == pytest.approx(7.5 / 6, abs=0.02)
    assert z.std().item() == pytest.approx(6**-0.5, rel=0.03)


def test_guide_that_runs_the_model_does_not_count_the_data_twice() -> None:
    """AutoNormalMessenger observes x as the model does; x belongs to log p alone."""
    x = torch.tensor([0.4, -1.0, 2.2])

    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = auto.AutoNormalMessenger(model)
    guide()
    for objective in (ELBO(50), IWAE(50, "dreg")):
        particles = objective.particles(model, guide)
        assert particles.parts["x"].log_q is None
        assert particles.log_weights.mean(0).sum() < dist.Normal(0.0, 2**0.5).log_prob(x).sum()
        assert objective.loss_and_grads(model, guide) > 0
