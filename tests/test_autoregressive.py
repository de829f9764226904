"""Autoregressive distributions and guides: sums over all values, dense Gaussians, gradients.

Absolute tolerances of 1e-9 and below are rounding in float64.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive, Entries
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.guides.recurrence import RecurrentSteps
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import LinearGaussian, expected_bound
from pyro_lvm.testing import check_guide

T = 5
MAX_Z = 5.5  # standard errors, over a few hundred numbers: less than once in 1e5 runs


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


def recurrent(entries: Entries, *batch: int, steps: int = 3) -> Autoregressive:
    network = RecurrentSteps(entries.num_inputs, 4, entries.num_outputs, state_features=6)
    return Autoregressive(network, torch.randn(*batch, steps, 4), entries)


class LinearSteps(nn.Module):
    """Normal steps whose mean is any linear map of the steps before, by one masked product."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight.tril(-1)  # (T, T), of step t on step s

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        on_inputs = self.weight.roll(1, 1)  # the input of step s is the value of step s - 1
        loc, raw = context.unbind(-1)
        loc = loc + inputs[..., 0] @ on_inputs.T
        return torch.stack([loc, raw.expand_as(loc)], -1)

    def step(self, inputs: Tensor, context: Tensor, state: Any) -> tuple[Tensor, Any]:
        before = [] if state is None else [*state, inputs[..., 0]]
        row = self.weight[len(before)]
        loc, raw = context.unbind(-1)
        loc = loc + sum(w * z for w, z in zip(row, before, strict=False))
        return torch.stack([loc, raw.expand_as(loc)], -1), before


def dense(normal: dist.MultivariateNormal) -> Autoregressive:
    """Any Gaussian, step by step."""
    whiten = torch.linalg.inv(normal.scale_tril[0])
    diagonal = whiten.diagonal()
    weight = -(whiten / diagonal[:, None]).tril(-1)
    loc = normal.loc - normal.loc @ weight.T
    raw = torch.log(torch.expm1(1 / diagonal - 1e-6)).expand_as(loc)
    return Autoregressive(LinearSteps(weight), torch.stack([loc, raw], -1), Entries("normal"))


def walk(last_noise: float = 0.4) -> LinearGaussian:
    """Increments of a random walk that is seen in noise, best at its end.

    The posterior of an increment depends on the sum of all others.
    """
    noise = torch.ones(T)
    noise[-1] = last_noise
    return LinearGaussian(torch.ones(T, T).tril(), noise)


def walks(oracle: LinearGaussian, size: int) -> Tensor:
    return torch.randn(size, T) @ oracle.loading.T + oracle.noise * torch.randn(size, T)


def train(guide: nn.Module, objective: Objective, model: Any, batch: Any, steps: int) -> None:
    optimizer = torch.optim.Adam(guide.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.differentiable_loss(model, guide, batch()).backward()
        optimizer.step()
        schedule.step()


# The distribution.

ENTRIES = [
    Entries("normal"),
    Entries("normal", (2,)),
    Entries("bernoulli"),
    Entries("bernoulli", (2,)),
    Entries("categorical", num_categories=3),
    Entries("categorical", (2,), num_categories=3),
]
every_entries = pytest.mark.parametrize("entries", ENTRIES, ids=str)


def by_step(q: Autoregressive, value: Tensor) -> Tensor:
    """The log-probability as a sum over steps."""
    dim = value.dim() - q.event_dim
    terms: list[Tensor] = []

    def score(t: int, step: Any) -> Tensor:
        given = value.select(dim, t)
        terms.append(step.log_prob(given))
        return given

    q.unroll(score)
    return torch.stack(terms).sum(0)


@every_entries
def test_one_pass_scores_as_step_by_step(entries: Entries, float64: Any) -> None:
    q = recurrent(entries, 4)
    value = q.expand((2, 4)).sample()
    assert value.shape == (2, 4, 3, *entries.shape)
    torch.testing.assert_close(q.log_prob(value), by_step(q, value), rtol=0, atol=1e-12)
    assert q.expand((2, 4)).log_prob(value).shape == (2, 4)
    assert bool(q.support.check(value).all())


def test_both_ways_round_alike_under_autocast() -> None:
    q = recurrent(Entries("normal"), 4, steps=50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = q.sample()
        assert q.log_prob(value).dtype == torch.float32
        torch.testing.assert_close(q.log_prob(value), by_step(q, value), rtol=0, atol=1e-4)


@every_entries
def test_shapes(entries: Entries) -> None:
    for batch in [(), (4,), (2, 4)]:
        q = recurrent(entries, *batch)
        assert (q.batch_shape, q.event_shape) == (batch, (3, *entries.shape))
        assert q.sample((7,)).shape == (7, *batch, 3, *entries.shape)
        assert q.log_prob(q.sample((7,))).shape == (7, *batch)
        assert q.sample().requires_grad is False
        assert q().requires_grad is q.has_rsample is (entries.family == "normal")


def all_values(entries: Entries, steps: int) -> Tensor:
    count = entries.num_categories if entries.family == "categorical" else 2
    values = torch.tensor(list(product(range(count), repeat=steps * sum(entries.shape or (1,)))))
    return values.reshape(-1, steps, *entries.shape).to(torch.get_default_dtype())


@pytest.mark.parametrize("entries", ENTRIES[2:], ids=str)
def test_probabilities_sum_to_one_and_draws_have_them(entries: Entries, float64: Any) -> None:
    q, values, count = recurrent(entries, 2), all_values(entries, 3), 20_000
    probabilities = q.log_prob(values.unsqueeze(1)).exp()  # (values, 2)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(2), rtol=0, atol=1e-12)
    base = torch.tensor(entries.num_categories).pow(torch.arange(values[0].numel()).flip(0))
    codes = (q.sample((count,)).flatten(2).long() * base).sum(-1)  # (count, 2), row of values
    frequencies = torch.stack([c.bincount(minlength=len(values)) for c in codes.T], 1) / count
    error = (probabilities * (1 - probabilities) / count).sqrt() + 1 / count
    assert ((frequencies - probabilities).abs() / error).max() < MAX_Z


def test_linear_steps_are_any_gaussian(float64: Any) -> None:
    """Density, draws and both gradients are those of the joint Normal."""
    exact = walk().posterior(walks(walk(), 7))
    q, value = dense(exact), torch.randn(3, 7, T, requires_grad=True)
    torch.testing.assert_close(q.log_prob(value), exact.log_prob(value), rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(f.log_prob(value).sum(), value)[0] for f in (q, exact)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)
    pyro.set_rng_seed(1)
    noise = torch.stack([torch.normal(torch.zeros(7), torch.ones(7)) for _ in range(T)], -1)
    pyro.set_rng_seed(1)
    draw = exact.loc + noise @ exact.scale_tril[0].T
    torch.testing.assert_close(q.rsample(), draw, rtol=0, atol=1e-9)


def test_linear_steps_are_the_exact_posterior(float64: Any) -> None:
    oracle = walk()
    x = walks(oracle, 6)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dense(oracle.posterior(x)))

    for objective in (ELBO(), IWAE(num_particles=5)):
        bound = objective.bound(oracle.model, guide, x)
        torch.testing.assert_close(bound, oracle.log_evidence(x), rtol=0, atol=1e-9)


def test_gradients_by_finite_differences(float64: Any) -> None:
    entries = Entries("normal", (2,))
    q = recurrent(entries, 2)
    value = q.sample().requires_grad_()
    context = q.context.requires_grad_()

    def score(context: Tensor, value: Tensor) -> Tensor:
        return Autoregressive(q.network, context, entries).log_prob(value)

    def draw(context: Tensor) -> Tensor:
        pyro.set_rng_seed(0)
        return Autoregressive(q.network, context, entries).rsample()

    assert torch.autograd.gradcheck(score, (context, value))
    assert torch.autograd.gradcheck(draw, (context,))


def test_a_step_depends_on_all_before_and_none_after(float64: Any) -> None:
    q = recurrent(Entries("normal"), steps=6)
    outputs = torch.autograd.functional.jacobian(
        lambda inputs: q.network(inputs.roll(1, 0).index_fill(0, torch.tensor(0), 0.0), q.context),
        torch.randn(6, 1),
    )
    depends = (outputs.abs().sum((1, 3)) > 0).to(torch.int)  # (step, value)
    assert torch.equal(depends, torch.ones(6, 6, dtype=torch.int).tril(-1))


# The guide.

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


def gradients(model: Any, guide: nn.Module, objective: Objective, x: Tensor, count: int) -> Tensor:
    """Of the loss of a datum, in all parameters, one row a replicate of rows that are alike."""
    draws = []
    for _ in range(count):
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        parts = torch.autograd.grad(loss, list(guide.parameters()))
        draws.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(draws)


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
    assert_same_mean(*draws, max_error=0.02)


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


# Discrete entries against enumeration.

BITS = 4
VALUES = torch.tensor(list(product([0.0, 1.0], repeat=BITS)), dtype=torch.float64)
SUMS = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)


def sum_of_bits(x: Tensor, noise: float = 0.3) -> None:
    """Bits that explain each other away: only their sum is seen."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1))
        total = z.sum(-1, keepdim=True)
        pyro.sample("x", dist.Normal(total, noise).to_event(1), obs=x)


def log_joint(x: Tensor, noise: float = 0.3) -> Tensor:  # (values, B)
    prior = dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1).log_prob(VALUES)
    return prior[:, None] + dist.Normal(VALUES.sum(-1)[:, None], noise).log_prob(x[:, 0])


def kl_to_posterior(log_q: Tensor, x: Tensor) -> Tensor:  # (B,)
    joint = log_joint(x)
    return (log_q.exp() * (log_q - joint + joint.logsumexp(0))).sum(0)


def best_factorised_kl(x: Tensor, starts: int = 50) -> Tensor:  # (B,)
    logits = torch.randn(starts * len(x), BITS, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(200):
        log_q = dist.Bernoulli(logits=logits).to_event(1).log_prob(VALUES[:, None])
        kl = kl_to_posterior(log_q, x.repeat(starts, 1))
        optimizer.zero_grad()
        kl.sum().backward()
        optimizer.step()
    return kl.detach().reshape(starts, len(x)).min(0).values


def bits_guide(hidden: tuple[int, ...] = (16,), state_features: int = 16) -> AutoregressiveGuide:
    return AutoregressiveGuide(
        in_features=1,
        num_steps=BITS,
        family="bernoulli",
        hidden=hidden,
        state_features=state_features,
    )


@pytest.mark.parametrize(
    ("objective", "limit"),
    [(ELBO(10, "score"), 0.1), (IWAE(5, "vimco"), 0.4)],
    ids=["score", "vimco"],
)
def test_trained_bits_explain_away(objective: Objective, limit: float, float64: Any) -> None:
    assert best_factorised_kl(SUMS).min() > 1.3
    guide = bits_guide()
    train(guide, objective, sum_of_bits, lambda: SUMS.repeat(30, 1), steps=300)
    kl = kl_to_posterior(guide.posterior(SUMS).log_prob(VALUES[:, None]), SUMS)
    assert kl.max() < limit


@pytest.mark.parametrize("gradient", ["score", "vimco"])
def test_score_gradients_are_those_of_enumeration(gradient: str, float64: Any) -> None:
    guide, x, objective = bits_guide((), 2), SUMS[1:2], IWAE(2, gradient)
    log_q = guide.posterior(x).log_prob(VALUES[:, None])[:, 0]
    bound = expected_bound(log_joint(x, 1.0)[:, 0] - log_q, log_q.exp(), 2)
    exact = torch.autograd.grad(-bound, list(guide.parameters()))
    draws = gradients(partial(sum_of_bits, noise=1.0), guide, objective, x.expand(2000, 1), 40)
    exact = torch.cat([part.flatten() for part in exact])
    error = draws.std(0) / len(draws) ** 0.5
    assert error.max() < 0.03 * exact.norm()
    assert ((draws.mean(0) - exact).abs() / error.clamp_min(1e-12)).max() < MAX_Z


# What users get wrong.


def test_a_context_without_steps() -> None:
    network = RecurrentSteps(1, 4, 2, 3)
    for shape in [(4,), (2, 0, 4)]:
        with explained(ProgramError, "context", "steps >= 1", f"{shape}", "context[:, None]"):
            Autoregressive(network, torch.zeros(shape), Entries("normal"))


def test_a_network_with_another_number_of_outputs() -> None:
    q = Autoregressive(RecurrentSteps(1, 4, 3, 5), torch.zeros(2, 4), Entries("normal"))
    for call in (q.sample, lambda: q.log_prob(torch.zeros(2))):
        with explained(ProgramError, "network RecurrentSteps", "2 outputs a step", "3", "last"):
            call()


@pytest.mark.parametrize("shape", [(), (2, 4), (3, 1)])
def test_a_value_of_another_shape(shape: tuple[int, ...]) -> None:
    q = recurrent(Entries("normal"))
    with explained(ProgramError, "value", "event shape (3,)", f"shape {shape}", "each step"):
        q.log_prob(torch.zeros(shape))


def test_discrete_entries_have_no_path_derivative() -> None:
    q = recurrent(Entries("bernoulli"))
    with pytest.raises(NotImplementedError, match=r"rsample: expected normal entries.*\nTry: .*"):
        q.rsample()
    guide = bits_guide()
    with explained(ProgramError, "site 'z'", "reparam", "without rsample", "score"):
        ELBO().differentiable_loss(sum_of_bits, guide, SUMS)


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"family": "poisson"}, "family", "'poisson'"),
        ({"num_categories": 0}, "num_categories", "0"),
        ({"num_steps": 0}, "num_steps", "0"),
        ({"latent_features": 0}, "latent_features", "0"),
        ({"state_features": 0}, "state_features", "0"),
        ({"num_data": 0}, "num_data", "0"),
        ({"in_features": 0, "num_steps": None}, "in_features", "0"),
        ({"encoder": nn.Identity()}, "encoder_features", "None"),
        ({"encoder": nn.Identity(), "num_steps": None}, "encoder_features", "None"),
        ({"encoder_features": 3}, "encoder_features", "3 without an encoder"),
        (
            {"encoder_features": 3, "num_steps": None},
            "encoder_features",
            "3 without an encoder",
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], where: str, found: str) -> None:
    with explained(ProgramError, where, "", found, ""):
        AutoregressiveGuide(**arguments)


def test_an_entry_of_no_size() -> None:
    with explained(ProgramError, "shape", "an integer >= 1", "0", "shape"):
        Entries("normal", (0,))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 0, 64), (4, 3, 64, 1), (0, 3, 64)])
def test_sequences_of_another_shape(shape: tuple[int, ...]) -> None:
    guide = AutoregressiveGuide(num_steps=None)
    with pytest.raises(DataError, match=r"x: expected"):
        guide(torch.zeros(shape))


def test_encoder_of_another_output_size() -> None:
    for encoder in (nn.Linear(6, 8), nn.Sequential(nn.Linear(6, 7), nn.Flatten())):
        guide = AutoregressiveGuide(encoder, encoder_features=7, num_steps=None)
        name = type(encoder).__name__
        with explained(DataError, f"encoder {name}", "(4, steps, 7)", "(4,", "one row a step"):
            guide(torch.zeros(4, 3, 6))
