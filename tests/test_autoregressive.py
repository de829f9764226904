"""Autoregressive distributions: sums over all values, dense Gaussians, gradients.

Absolute tolerances of 1e-9 and below are rounding in float64.
"""

from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from autoregressive_parts import MAX_Z, T, recurrent, walk, walks
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive, Entries
from pyro_lvm.objectives import ELBO, IWAE


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


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
