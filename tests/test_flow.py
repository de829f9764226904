"""Flows: a density that is one, exact gradients of it, and posteriors that no Normal fits."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.distributions import ConditionalFlow, FlowDistribution
from pyro_lvm.distributions.flow import FAMILIES
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedFlow, AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import data_plate
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.testing import check_guide

TWO = {"z1": 3, "z2": 2}
every_family = pytest.mark.parametrize("family", FAMILIES)
with_context = pytest.mark.parametrize("context_features", [0, 3])


def bent(features: int, context_features: int, family: str, **options: Any) -> ConditionalFlow:
    """A flow well away from the identity."""
    flow = ConditionalFlow(features, context_features, family, hidden=(8,), **options)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


def context_of(flow: ConditionalFlow, *shape: int) -> Tensor | None:
    size = flow.context_features
    return torch.randn(*shape, size, requires_grad=True) if size else None


def grid(half_width: float, nodes: int) -> tuple[Tensor, float]:
    """Points ``(nodes ** 2, 2)`` of a square, and the area that each stands for."""
    line = torch.linspace(-half_width, half_width, nodes)
    return torch.cartesian_prod(line, line), (2 * half_width / (nodes - 1)) ** 2


# The distribution.


@every_family
@with_context
def test_density_integrates_to_one(family: str, context_features: int, float64: Any) -> None:
    """The trapezoid rule is exact to 1e-8 for a smooth density; a spline's has kinks."""
    flow = bent(2, context_features, family, num_transforms=2)
    points, area = grid(14.0, 281)
    with torch.no_grad():
        mass = flow(context_of(flow)).log_prob(points).exp().sum() * area
    assert abs(mass - 1) < (1e-3 if "nsf" in family else 1e-6)


@every_family
@with_context
@pytest.mark.parametrize("features", [1, 3])
def test_density_is_the_change_of_variables(
    family: str, context_features: int, features: int, float64: Any
) -> None:
    flow = bent(features, context_features, family)
    context = context_of(flow)
    to_value = flow.flow(context).transform.inv
    for noise in torch.randn(5, features):
        jacobian = torch.autograd.functional.jacobian(to_value, noise)
        expected = dist.Normal(0.0, 1.0).log_prob(noise).sum() - jacobian.det().abs().log()
        torch.testing.assert_close(flow(context).log_prob(to_value(noise)), expected)


@every_family
def test_tails_of_a_spline_are_normal(family: str, float64: Any) -> None:
    """Outside [-5, 5] of the standardised value a spline is the identity, in every layer."""
    flow, far = bent(2, 0, family), torch.tensor([[60.0, -70.0]])
    affine = flow.flow.transform.transform.transforms[-1]().base
    normal = dist.Normal(affine.shift, affine.scale).to_event(1)
    is_normal = torch.allclose(flow().log_prob(far), normal.log_prob(far))
    assert is_normal == ("nsf" in family)


@every_family
@with_context
def test_shapes(family: str, context_features: int) -> None:
    flow = bent(3, context_features, family)
    q = flow(context_of(flow, 4))
    batch = (4,) if context_features else ()
    assert (q.batch_shape, q.event_shape, q.event_dim) == (batch, (3,), 1)
    particles = q.expand((6, 4))
    assert particles.batch_shape == (6, 4)
    assert particles().shape == (6, 4, 3)
    assert particles((5,)).shape == (5, 6, 4, 3)
    assert particles.log_prob(particles((5,))).shape == (5, 6, 4)
    assert particles.log_prob(torch.zeros(3)).shape == (6, 4)
    assert q.log_prob(torch.zeros(6, 4, 3)).shape == (6, 4)


@every_family
@with_context
def test_expanding_draws_anew_and_scores_the_same(
    family: str, context_features: int, float64: Any
) -> None:
    flow = bent(3, context_features, family)
    q = flow(context_of(flow, 4))
    particles = q.expand((6, 4))
    draws = particles()
    assert len(draws.unique(dim=0)) == 6
    torch.testing.assert_close(particles.log_prob(draws), q.log_prob(draws))


def test_particles_are_independent(float64: Any) -> None:
    """20000 pairs: a correlation has standard error 0.007."""
    first, second = bent(2, 0, "iaf")().expand((2, 20000))().detach()
    correlations = torch.corrcoef(torch.cat([first, second], -1).T)[:2, 2:]
    assert (correlations.abs() < 0.035).all()


@every_family
def test_expanding_runs_no_network(family: str) -> None:
    flow = bent(3, 2, family, num_transforms=2)
    runs: list[nn.Module] = []
    for module in flow.modules():
        if isinstance(module, nn.Sequential):
            module.register_forward_hook(lambda network, *_: runs.append(network))
    q = flow(torch.randn(4, 2))
    made = len(runs)
    particles = q.expand((6, 4))
    assert len(runs) == made
    particles.log_prob(particles())
    passes = 1 if family.startswith("i") else 3 + 1  # to draw, and for log det
    assert len(runs) - made == 2 * passes


@every_family
def test_draws_are_consistent_under_autocast(family: str) -> None:
    """Value and density in float32: rounding of the inverse, not bfloat16's 0.01."""
    flow, context = bent(4, 3, family), torch.randn(20, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = flow(context)
        draw = q()
        again, other = q.log_prob(draw), q.log_prob(draw.clone())
    exact = flow(context.float()).log_prob(draw)
    assert {draw.dtype, again.dtype, other.dtype} == {torch.float32}
    torch.testing.assert_close(again, exact, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other, exact, atol=1e-4, rtol=1e-4)


def test_importing_leaves_argument_checks_on() -> None:
    code = (
        "import torch.distributions as d; before = d.Distribution._validate_args;"
        "import pyro_lvm.distributions.flow;"
        "raise SystemExit(before is not True or d.Distribution._validate_args is not True)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_are_checked() -> None:
    q = ConditionalFlow(3)()
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.tensor([0.0, float("nan"), 0.0]))
    with pytest.raises(ValueError, match="shape"):
        q.expand((5,)).log_prob(torch.zeros(4, 3))


# Its gradient, in the value and in the parameters.


def gradients(value: Tensor, flow: nn.Module) -> list[Tensor]:
    parameters = list(flow.parameters())
    return list(torch.autograd.grad(value.sum(), parameters, materialize_grads=True))


@every_family
@with_context
def test_scoring_a_draw_again_is_exact(family: str, context_features: int, float64: Any) -> None:
    """Same value and same total derivative as by inverting a view of it."""
    flow = bent(3, context_features, family)
    results = []
    for again in (lambda z: z, lambda z: z.view_as(z)):
        pyro.set_rng_seed(1)
        q = flow(None if context_features == 0 else torch.ones(4, 3)).expand((6, 4))
        score = q.log_prob(again(q()))
        results.append((score.detach(), gradients(score, flow)))
    torch.testing.assert_close(results[0], results[1])


@every_family
def test_gradient_at_fixed_values_is_the_direct_one(family: str, float64: Any) -> None:
    """Of ``detach()``, of ``sample()`` and of a draw without gradients: finite differences."""
    flow = bent(2, 3, family)
    context = torch.ones(4, 3)

    def check_direct(q: FlowDistribution, value: Tensor) -> None:
        weight = flow.flow.transform.transform.transforms[-1].hyper[0].weight
        (gradient,) = torch.autograd.grad(q.log_prob(value).sum(), weight)
        step = 1e-6 * torch.randn_like(weight)
        sums = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step)
                sums.append(flow(context).log_prob(value.clone()).sum())
                weight.sub_(sign * step)
        torch.testing.assert_close((gradient * step).sum(), (sums[0] - sums[1]) / 2)

    def without_gradient(q: FlowDistribution) -> Tensor:
        with torch.no_grad():
            return q.rsample()

    for draw in (
        lambda q: q().detach(),
        lambda q: q.sample(),
        lambda q: q.has_rsample_(False)(),
        without_gradient,
    ):
        q = flow(context)
        check_direct(q, draw(q))


@every_family
def test_gradient_in_the_value(family: str, float64: Any) -> None:
    flow = bent(2, 3, family)
    q = flow(torch.ones(3))
    value = q.sample().requires_grad_()
    assert torch.autograd.gradcheck(q.log_prob, value)


class Bent(PyroModule):
    """A guide of two dims in one site, or in two of which the second depends on the first."""

    def __init__(self, family: str, num_sites: int) -> None:
        super().__init__()
        sizes = {1: [(2, 0)], 2: [(1, 0), (1, 1)]}[num_sites]
        self.flows = nn.ModuleList(bent(n, c, family, num_transforms=1) for n, c in sizes)

    def forward(self, x: Tensor) -> None:
        context = None
        with data_plate(len(x)):
            for name, flow in zip("ab", self.flows, strict=False):
                context = pyro.sample(name, flow(context))


class Curved(PyroModule):
    """x ~ N(z2 + z1^2, 0.7), with both dims of z in one site or one each."""

    def __init__(self, num_sites: int) -> None:
        super().__init__()
        self.num_sites = num_sites

    def forward(self, x: Tensor) -> None:
        prior = dist.Normal(torch.zeros(2 // self.num_sites), 1.0).to_event(1)
        with data_plate(len(x)):
            z = torch.cat([pyro.sample(name, prior) for name in "ab"[: self.num_sites]], -1)
            pyro.sample("x", dist.Normal(z[..., 1] + z[..., 0] ** 2, 0.7), obs=x)


def mean_gradient(model: Any, guide: Any, objective: Objective) -> tuple[Tensor, Tensor]:
    """Mean and standard error over 100 replicates of 200 data each."""
    x = torch.full((200,), 0.5)
    draws = []
    for _ in range(100):
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        draws.append(torch.cat([g.flatten() for g in gradients(loss, guide)]))
    sample = torch.stack(draws)
    return sample.mean(0), sample.std(0) / len(sample) ** 0.5


@pytest.mark.parametrize(("family", "num_sites"), [("iaf", 1), ("maf", 1), ("nsf", 1), ("iaf", 2)])
@pytest.mark.parametrize(
    "make", [lambda gradient: ELBO(1, gradient), lambda gradient: IWAE(5, gradient)]
)
def test_estimators_have_one_mean(
    make: Callable[[str], Objective], family: str, num_sites: int, float64: Any
) -> None:
    """Path gradients against the plain one: 5.5 standard errors over 42 to 442 numbers."""
    model, guide = Curved(num_sites), Bent(family, num_sites)
    plain, error = mean_gradient(model, guide, make("reparam"))
    for gradient in ("stl", "dreg") if isinstance(make("reparam"), ELBO) else ("dreg",):
        path, path_error = mean_gradient(model, guide, make(gradient))
        both = (error**2 + path_error**2).sqrt()
        assert both.max() < 0.05 * plain.norm(), "the standard error hides faults"
        assert ((path - plain).abs() / both.clamp_min(1e-9)).max() < 5.5


# The guide.


@every_family
@pytest.mark.parametrize("latent_features", [3, 1, TWO], ids=str)
def test_contract(family: str, latent_features: Any, float64: Any) -> None:
    guide = AmortizedFlow(
        in_features=5, latent_features=latent_features, hidden=(7,), family=family
    )
    check_guide(guide, torch.rand(4, 5), num_draws=1000)


def test_later_sites_depend_on_earlier_ones() -> None:
    guide, x = AmortizedFlow(latent_features=TWO), torch.rand(4, 64)
    scores = []
    for z1 in (torch.zeros(4, 3), torch.ones(4, 3)):
        held = pyro.condition(guide, data={"z1": z1})
        scores.append(pyro.poutine.trace(held).get_trace(x).nodes["z2"]["fn"])
    zero = torch.zeros(4, 2)
    assert (scores[0].log_prob(zero) != scores[1].log_prob(zero)).all()


@pytest.mark.parametrize("latent_features", [16, TWO], ids=str)
def test_starts_near_a_standard_normal(latent_features: Any) -> None:
    guide, x = AmortizedFlow(latent_features=latent_features), torch.rand(200, 64)
    for z in guide(x).values():
        # Transforms at random: over seeds either is off by up to 0.055, draws included.
        assert z.mean().abs() < 0.15
        assert (z.std() - 1).abs() < 0.15


@pytest.mark.parametrize("num_particles", [1, 5])
def test_encoder_runs_once_a_call(num_particles: int) -> None:
    model, guide = VAE(64, (3, 2)), AmortizedFlow(latent_features=TWO)
    rows: list[tuple[int, ...]] = []
    guide.encoding.encoder.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape)))
    objective = IWAE(num_particles=num_particles, max_plate_nesting=1)
    objective.loss_and_grads(model, guide, model(size=4).detach())
    assert rows == [(4, 200)]


def train(model: Any, guide: Any, x: Tensor, steps: int, lr: float = 0.03) -> None:
    with pyro.settings.context(module_local_params=True):
        loss = ELBO(16)(model, guide)
        optimizer = torch.optim.Adam(guide.parameters(), lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
            schedule.step()


def test_closes_the_gap_of_a_diagonal_normal(float64: Any) -> None:
    """The best diagonal Normal is known: its gap is half of log(prod of precisions x det C)."""
    oracle = LinearGaussian(torch.tensor([[1.0, 0.9], [1.0, 1.1], [0.8, 1.0]]), 0.3 * torch.ones(3))
    x = torch.randn(20, 3) @ torch.diag(oracle.noise) + torch.randn(20, 2) @ oracle.loading.T
    posterior = oracle.posterior(x)
    precisions = posterior.precision_matrix[0].diagonal()
    diagonal_gap = 0.5 * (precisions.log().sum() + posterior.covariance_matrix[0].logdet())
    guide = AmortizedFlow(
        in_features=3, latent_features=2, hidden=(), context_features=4, flow_hidden=(8,)
    )
    train(oracle.model, guide, x, steps=400)
    bound = ELBO(2000).bound(oracle.model, guide, x)
    gap = (oracle.log_evidence(x) - bound).mean()
    print(f"gap in nats: diagonal {diagonal_gap:.3f}, flow {gap:.4f}")
    assert diagonal_gap > 1
    assert gap < 0.1 * diagonal_gap


@pytest.mark.parametrize("family", ["iaf", pytest.param("insf", marks=pytest.mark.slow)])
def test_beats_any_normal_on_a_curved_posterior(family: str, float64: Any) -> None:
    """x = z2 + z1^2 + noise; KL(q || posterior) in nats by quadrature."""

    def model(x: Tensor) -> None:
        with data_plate(len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 1] + z[..., 0] ** 2, 0.3), obs=x[:, 0])

    points, area = grid(6.0, 241)
    z, x = points[:, None], torch.zeros(1, 1)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_p = log_p + dist.Normal(z[..., 1] + z[..., 0] ** 2, 0.3).log_prob(x[:, 0])
    log_posterior = log_p - log_p.logsumexp(0) - torch.tensor(area).log()

    def kl(guide: Any) -> float:
        train(model, guide, x, steps=400)
        with torch.no_grad():
            log_q = pyro.poutine.trace(guide).get_trace(x).nodes["z"]["fn"].log_prob(z)
        assert abs(log_q.exp().sum() * area - 1) < 1e-3
        return float((log_q.exp() * (log_q - log_posterior)).sum() * area)

    options: dict[str, Any] = {"in_features": 1, "latent_features": 2, "hidden": ()}
    normal = kl(AmortizedNormal(covariance="full", **options))
    flow = kl(AmortizedFlow(family=family, context_features=2, flow_hidden=(32,), **options))
    print(f"KL in nats: full Normal {normal:.3f}, {family} {flow:.3f}")
    assert flow < 0.6 * normal


def test_fits_with_a_model_of_the_package() -> None:
    model, guide = VAE(64, (3, 2), hidden=(9,)), AmortizedFlow(latent_features=TWO, hidden=(9,))
    x = (torch.rand(40, 64) < 0.5).float()
    result = fit(model, guide, x, IWAE(3, "dreg"), max_steps=40, lr=0.01, log_every=1)
    loss = result.history["loss"]
    assert sum(loss[-5:]) < sum(loss[:5])


class FlowPrior(PyroModule):
    """A latent with a learned prior, seen with noise."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = ConditionalFlow(2, family="nsf", num_transforms=1, hidden=(5,))

    def forward(self, x: Tensor) -> None:
        with data_plate(len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def test_learned_prior() -> None:
    model, x = FlowPrior(), torch.ones(4, 2)
    guide = AmortizedNormal(in_features=2, latent_features=2)
    assert IWAE(3).log_weights(model, guide, x).shape == (3, 4)
    loss = IWAE(3).differentiable_loss(model, guide, x)
    assert all(bool(g.any()) for g in gradients(loss, model))


# What it refuses.

WRONG: list[tuple[Callable[[], Any], tuple[str, str, str, str]]] = [
    (
        lambda: ConditionalFlow(3, family="glow"),
        ("family", "one of ['maf', 'nsf', 'iaf', 'insf']", "'glow'", "family='maf'"),
    ),
    (lambda: AmortizedFlow(family="glow"), ("family", "one of", "'glow'", "family='maf'")),
    (lambda: ConditionalFlow(0), ("features", "an integer >= 1", "0", "Check features")),
    (lambda: ConditionalFlow(3, -1), ("context_features", ">= 1", "-1", "Check")),
    (lambda: ConditionalFlow(3, num_transforms=0), ("num_transforms", ">= 1", "0", "Check")),
    (lambda: ConditionalFlow(3, hidden=(0,)), ("hidden", ">= 1", "0", "Check hidden")),
    (lambda: ConditionalFlow(3, 4)(), ("context", "4 features", "none", "context_features=")),
    (lambda: ConditionalFlow(3)(torch.zeros(5)), ("context", "no features", "5", "context_")),
    (lambda: ConditionalFlow(3, 4)(torch.zeros(5)), ("context", "4 features", "5", "Make it")),
    (lambda: AmortizedFlow(context_features=0), ("context_features", ">= 1", "0", "Check")),
    (lambda: AmortizedFlow(num_data=0), ("num_data", ">= 1", "0", "Check")),
    (lambda: AmortizedFlow(nn.Identity()), ("encoder_features", "a size", "None", "Pass")),
]


@pytest.mark.parametrize(("make", "parts"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], parts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *parts):
        make()
