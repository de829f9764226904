"""Autoregressive guides: one site or one a step, their path gradients, what training reaches.

Absolute tolerances of 1e-12 are rounding in float64.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from autoregressive_parts import MAX_Z, T, gradients, train, walk, walks
from torch import Tensor, nn

from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.testing import check_guide


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


GUIDES: dict[str, Callable[[], AutoregressiveGuide]] = {
    "sequences": lambda: AutoregressiveGuide(in_features=64, num_steps=None, state_features=8),
    "sequences-sites": lambda: AutoregressiveGuide(
        in_features=64, num_steps=None, site="z_{}", latent_features=2, state_features=8
    ),
    "sequences-own-encoder": lambda: AutoregressiveGuide(
        nn.Linear(64, 7), encoder_features=7, num_steps=None, state_features=8
    ),
}


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_contract_of_sequences(make: Callable[[], AutoregressiveGuide]) -> None:
    check_guide(make(), torch.rand(4, 3, 64))


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
@pytest.mark.parametrize("site", ["z", "z_{}"])
def test_discrete_sites(family: str, site: str) -> None:
    guide = AutoregressiveGuide(
        in_features=6, num_steps=3, site=site, family=family, num_categories=4, hidden=(9,)
    )
    x = torch.rand(5, 6)
    trace = pyro.poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    names = ["z"] if site == "z" else ["z_0", "z_1", "z_2"]
    assert [n for n in trace.nodes if n.startswith("z")] == names
    total = sum(trace.nodes[n]["log_prob"] for n in names)
    value = torch.stack([trace.nodes[n]["value"] for n in names], -1).reshape(5, 3)
    torch.testing.assert_close(total, guide.posterior(x).log_prob(value))
    total.sum().backward()
    assert all(bool(p.grad.isfinite().all() & p.grad.any()) for p in guide.parameters())


def test_any_number_of_rows() -> None:
    guide = AutoregressiveGuide(in_features=2, num_steps=None, state_features=8)
    assert guide(torch.rand(4, 3, 2))["z"].shape == (4, 3)
    assert guide(torch.rand(4, 9, 2))["z"].shape == (4, 9)


def test_every_step_knows_the_whole_sequence() -> None:
    guide = AutoregressiveGuide(in_features=1, num_steps=None, state_features=8)
    x = torch.rand(1, 4, 1, requires_grad=True)
    for row in guide.posterior(x).context[0].sum(-1):
        (gradient,) = torch.autograd.grad(row, x, retain_graph=True)
        assert (gradient != 0).all()


def test_encoder_runs_once_a_call() -> None:
    guide, rows = AutoregressiveGuide(in_features=T, num_steps=T, hidden=(9,)), []
    guide.context.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    objective = IWAE(num_particles=7, gradient="dreg", max_plate_nesting=1)
    objective.loss_and_grads(walk().model, guide, torch.randn(4, T))
    assert rows == [(4, T, 64)]


def by_site(x: Tensor) -> None:
    """The walk's model with a site for each increment."""
    oracle = walk()
    with pyro.plate("data", len(x), dim=-1):
        z = [pyro.sample(f"z_{t}", dist.Normal(torch.zeros(()), 1.0)) for t in range(T)]
        loc = torch.stack(z, -1) @ oracle.loading.T
        pyro.sample("x", dist.Normal(loc, oracle.noise).to_event(1), obs=x)


def pair() -> list[tuple[Any, Any]]:
    """One guide in both ways, a little trained, so that steps depend on others; its models."""
    sizes = {"in_features": T, "num_steps": T, "hidden": (), "state_features": 2}
    guides = [AutoregressiveGuide(site=site, **sizes) for site in ("z", "z_{}")]
    train(guides[0], ELBO(gradient="stl"), walk().model, lambda: walks(walk(), 64), steps=100)
    guides[1].load_state_dict(guides[0].state_dict())
    return list(zip([walk().model, by_site], guides, strict=True))


def test_one_site_and_a_site_a_step_are_the_same_guide(float64: Any) -> None:
    x, log_weights = walks(walk(), 6), []
    for model, guide in pair():
        pyro.set_rng_seed(1)
        log_weights.append(IWAE(num_particles=4).log_weights(model, guide, x))
    torch.testing.assert_close(*log_weights, rtol=0, atol=1e-12)


def assert_same_mean(a: Tensor, b: Tensor, max_error: float) -> None:
    """``max_error``: the largest standard error as a part of the gradient's norm."""
    error = ((a.var(0) / len(a)) + (b.var(0) / len(b))).sqrt()
    assert error.max() < max_error * a.mean(0).norm(), "the standard errors hide faults"
    assert ((a.mean(0) - b.mean(0)).abs() / error.clamp_min(1e-12)).max() < MAX_Z


@pytest.mark.parametrize("which", [0, 1], ids=["one-site", "site-a-step"])
@pytest.mark.parametrize(
    ("plain", "path"),
    [(ELBO(), ELBO(gradient="stl")), (IWAE(4), IWAE(4, "dreg"))],
    ids=["stl", "dreg"],
)
def test_path_gradients_have_the_mean(
    which: int, plain: Objective, path: Objective, float64: Any
) -> None:
    x = torch.full((1000, T), 0.3)
    model, guide = pair()[which]
    draws = [gradients(model, guide, objective, x, 40) for objective in (plain, path)]
    assert_same_mean(*draws, max_error=0.05)


def test_trained_guide_has_correlations_that_no_diagonal_has(float64: Any) -> None:
    r"""The best diagonal Normal is :math:`\frac12 \sum \log P_{ii} - \frac12 \log |P|` off."""
    oracle = walk()
    x = walks(oracle, 300)
    exact, evidence = oracle.posterior(x), oracle.log_evidence(x)
    precision = exact.precision_matrix[0]
    best_gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    best = dist.MultivariateNormal(exact.loc, torch.diag(1 / precision.diagonal()))
    torch.testing.assert_close(evidence - oracle.elbo(x, best), best_gap.expand(300))
    guide = AutoregressiveGuide(in_features=T, num_steps=T, hidden=(), state_features=16)
    train(guide, ELBO(gradient="stl"), oracle.model, lambda: walks(oracle, 64), steps=300)
    bound = ELBO(num_particles=100).bound(oracle.model, guide, x)
    assert best_gap > 2.5
    assert (evidence - bound).mean() < 0.15
