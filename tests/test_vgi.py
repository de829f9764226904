"""Variational Gibbs inference against the exact answers of factor analysis.

Where conditionals are exact, a row with one hole has a bound without noise; elsewhere means are
compared within four of their own standard errors.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from gibbs_parts import (
    D,
    exact_guide,
    factor_analysis,
    given_observed,
    log_p_observed,
    marginal,
)
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_lvm.chains import random_scan
from pyro_lvm.errors import CheckpointError, DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO, IWAE, VGI, AlphaDivergence, ReweightedWakeSleep

pytestmark = pytest.mark.usefixtures("float64")

NAN = torch.nan


def table(rows: int = 6) -> Tensor:
    """Rows of one hole, of two, of none, of all but one, in turn."""
    x = marginal(factor_analysis()).sample((rows,))
    holes = [[1], [0, 2], [], [0, 1, 3]]
    for row in range(rows):
        x[row, holes[row % 4]] = NAN
    return x


def everything(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.arange(len(x))


def first(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:1], torch.tensor([0])


def trainable(model: nn.Module, guide: nn.Module) -> dict[str, Tensor]:
    return dict(nn.ModuleDict({"model": model, "guide": guide}).named_parameters())


def repeated(loss: Callable[[], Tensor], parameters: list[Tensor], repeats: int = 40) -> Tensor:
    """A loss and its gradient in all parameters, one row a repeat."""
    rows = []
    for _ in range(repeats):
        value = loss()
        parts = [value, *torch.autograd.grad(value, parameters)]
        rows.append(torch.cat([part.detach().flatten() for part in parts]))
    return torch.stack(rows)


def assert_mean(found: Tensor, exact: list[Tensor], largest_error: float) -> None:
    """Within 5 standard errors, and rounding where there is no noise."""
    error = found.std(0) / len(found) ** 0.5
    assert error.max() < largest_error
    difference = found.mean(0) - torch.cat([part.detach().flatten() for part in exact])
    assert (difference.abs() < 5 * error + 1e-12).all()


# What the number is.


def test_complete_rows_score_log_p_alone() -> None:
    model = factor_analysis()
    x = marginal(model).sample((5,))
    objective = VGI(Chains(x, 3))
    guide = GibbsGuide(GibbsConditionals(D))
    bound = objective.bound(Completed(model), guide, x)
    torch.testing.assert_close(bound, model.log_evidence(x))
    part = torch.tensor([1, 4])
    loss = objective.loss(Completed(model), guide, x[part], part)
    assert loss == pytest.approx(-5 / 2 * model.log_evidence(x[part]).sum().item())


def test_complete_rows_in_the_places_of_chains_do_too() -> None:
    """One row of 17 has a hole, and three are scored by chains."""
    model = factor_analysis()
    x = marginal(model).sample((17,))
    x[5, 1] = NAN
    chains = Chains(x, 3)
    objective, guide = VGI(chains, num_targets=2), GibbsGuide(GibbsConditionals(D))
    whole = torch.arange(17) != 5
    scores = objective.log_weights(Completed(model), guide, *everything(x))[:, whole]
    torch.testing.assert_close(scores, model.log_evidence(x[whole]).expand(6, -1))
    objective(Completed(model), guide)(*everything(x))
    assert torch.equal(chains.values[whole], x[whole].unsqueeze(1).expand(-1, 3, -1))


def test_one_hole_and_exact_conditionals_give_the_observed_evidence() -> None:
    model, x, rows = factor_analysis(), table(), torch.tensor([0, 4])
    objective = VGI(Chains(x, 3), num_updates=2)
    bound = objective.bound(Completed(model), exact_guide(model), x[rows], rows)
    exact = torch.stack([log_p_observed(model, row) for row in x[rows]])
    torch.testing.assert_close(bound, exact)


def test_a_draw_has_the_mean_that_is_promised() -> None:
    """One hole: log p(x_obs) - KL(q || p(x_j | x_obs)), two Normals."""
    model, x = factor_analysis(), table(3)
    guide = exact_guide(model)
    exact = guide.conditionals(x[:1], torch.tensor([1]))
    with torch.no_grad():
        guide.conditionals.head.bias[1] += torch.tensor([0.3, -0.5])
    q = guide.conditionals(x[:1], torch.tensor([1]))
    normals = [dist.Normal(each.mean, each.variance.sqrt()) for each in (q, exact)]
    expected = log_p_observed(model, x[0]) - kl_divergence(*normals)
    draws = VGI(Chains(x, 4000)).log_weights(Completed(model), guide, *first(x))
    error = draws.std() / len(draws) ** 0.5
    assert error < 0.1 * kl_divergence(*normals)
    assert abs(draws.mean() - expected) < 4 * error


@pytest.mark.parametrize("block_size", [2, 3, 7])
def test_a_block_has_the_mean_that_is_promised(block_size: int) -> None:
    """All holes of a row at once: log p(x_obs) - KL(prod q_j || p(x_mis | x_obs)), two Normals."""
    model, x = factor_analysis(), table(3)
    guide, columns, rows = exact_guide(model), torch.tensor([0, 2]), torch.tensor([1])
    hidden = x[rows].expand(2, 1, -1)
    q = guide.conditionals(hidden, columns.unsqueeze(1))  # (2, 1), neither hole is read
    independent = dist.MultivariateNormal(q.mean.squeeze(1), q.variance.squeeze(1).diag())
    divergence = kl_divergence(independent, given_observed(model, x[1]))
    chains = Chains(x, 4000)
    objective = VGI(chains, num_updates=1, block_size=block_size)
    draws = objective.log_weights(Completed(model), guide, x[rows], rows)
    error = draws.std() / len(draws) ** 0.5
    assert error < 0.1 * divergence
    assert abs(draws.mean() - (log_p_observed(model, x[1]) - divergence)) < 4 * error
    objective.differentiable_loss(Completed(model), guide, x[rows], rows)
    moved = chains.values[1][:, columns]  # independent, although the model's are not
    assert torch.corrcoef(moved.T)[0, 1].abs() < 4 / len(moved) ** 0.5
    assert (moved.mean(0) - q.mean.squeeze(1)).abs().max() < 4 * moved.std(0).max() / 4000**0.5
    assert torch.equal(chains.values[1][:, [1, 3]], x[1, [1, 3]].expand(4000, 2))


def test_a_block_is_some_of_the_holes_and_a_short_row_gives_all() -> None:
    """Rows of one hole beside rows of three, in blocks of two: the mean over pairs."""
    model, x = factor_analysis(), table()
    guide, chains = exact_guide(model), Chains(x, 3)
    chains.values = chains.values.repeat(1, 2000, 1)
    objective = VGI(chains, num_updates=0, num_targets=2, block_size=2)
    found = objective.log_weights(Completed(model), guide, *everything(x))
    one = VGI(chains, num_updates=0).log_weights(Completed(model), guide, *everything(x))
    torch.testing.assert_close(found[:, 0], one[:1, 0].expand(len(found)))  # exact, no noise
    states, terms = chains.values[3, :3], []
    for pair in ([0, 1], [0, 3], [1, 3]):
        columns = torch.tensor(pair).unsqueeze(1).expand(2, 3)
        hidden = states.clone()
        hidden[:, pair] = NAN
        q = guide.conditionals(hidden.expand(2, -1, -1), columns)
        draw = q.sample((4000,))  # (4000, 2, 3)
        filled = states.expand(4000, -1, -1).clone()
        filled[..., pair] = draw.movedim(1, -1)
        terms.append(marginal(model).log_prob(filled) - q.log_prob(draw).sum(1))
    exact, error = torch.stack(terms).mean(), found[:, 3].std() / len(found) ** 0.5
    assert abs(found[:, 3].mean() - exact) < 5 * error


def test_one_target_is_unbiased_for_all() -> None:
    """The mean over a row's missing entries, of chains that rest at their start."""
    model, x = factor_analysis(), table()
    guide = exact_guide(model)
    with torch.no_grad():
        guide.conditionals.head.bias[:, 0] += torch.tensor([0.5, 0.0, -1.0, 0.2])
    chains = Chains(x, 3)
    chains.values = chains.values.repeat(1, 400, 1)
    row = 3
    states = chains.values[row, :3]
    terms = []
    for column in [0, 1, 3]:
        q = guide.conditionals(states, torch.full((3,), column))
        draw = q.sample((2000,))
        filled = states.expand(2000, -1, -1).clone()
        filled[..., column] = draw
        terms.append(marginal(model).log_prob(filled) - q.log_prob(draw))
    exact = torch.stack(terms).mean()
    for num_targets in (1, 2, 5):
        objective = VGI(chains, num_updates=0, num_targets=num_targets)
        found = objective.log_weights(Completed(model), guide, *everything(x))[:, row]
        assert len(found) == 1200 * num_targets
        assert abs(found.mean() - exact) < 5 * found.std() / len(found) ** 0.5


def test_which_of_the_missing_is_scored_is_uniform() -> None:
    rows = torch.tensor([[True, False, True, True]]).expand(9000, -1)
    probability = torch.tensor([1 / 3, 0, 1 / 3, 1 / 3])
    error = (probability * (1 - probability) / 9000).sqrt()
    for columns in random_scan(rows, 5):
        share = torch.stack([(columns == j).double().mean() for j in range(D)])
        assert ((share - probability).abs() <= 4 * error).all()


def test_gradient_is_that_of_the_observed_evidence() -> None:
    """At exact conditionals: Fisher's identity for the model, zero for the guide."""
    model, x = factor_analysis(), table(3)
    guide = exact_guide(model)
    parameters = list(trainable(model, guide).values())
    loss = -log_p_observed(model, x[0])
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    exact = [loss, *gradient, *(torch.zeros_like(p) for p in guide.parameters())]

    def estimate() -> Tensor:
        return VGI(Chains(x, 500))(Completed(model), guide)(*first(x)) / 3

    assert_mean(repeated(estimate, parameters), exact, largest_error=0.015)


def test_rows_without_anything_observed_count_as_nothing() -> None:
    model, x = factor_analysis(), table(4)
    guide = GibbsGuide(GibbsConditionals(D))
    x[2] = NAN
    for warmup in (0, 10):
        objective = VGI(Chains(x, 2), warmup=warmup)
        loss = objective(Completed(model), guide)(x[2:3], torch.tensor([2]))
        loss.backward()
        assert loss == 0
        assert all(not p.grad.any() for p in trainable(model, guide).values() if p.grad is not None)


class Pair(PyroModule):
    """Two classes, the second given the first; no latents."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.2, -0.4]))
        self.second = nn.Parameter(torch.tensor([[0.1, 0.5, -0.3], [-1.0, 0.0, 0.7]]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Categorical(logits=self.first), obs=x[:, 0])
            pyro.sample("b", dist.Categorical(logits=self.second[a.long()]), obs=x[:, 1])


def test_classes_by_the_score_have_the_exact_gradient() -> None:
    """The sum over the classes of a missing entry, against a mean over many chains."""
    model, x = Pair(), torch.tensor([[1.0, NAN]])
    guide = GibbsGuide(GibbsConditionals(2, num_classes=(2, 3), hidden=()))
    q = guide.conditionals(torch.zeros(1, 2) + x[0, 0], torch.tensor([1])).classes
    log_p = model.first.log_softmax(0)[1] + model.second.log_softmax(1)[1]
    exact = (q.probs[0] * (log_p - q.logits[0])).sum()
    parameters = list(trainable(model, guide).values())
    wanted = torch.autograd.grad(-exact, parameters)
    objective = VGI(Chains(torch.tensor([[1.0, NAN], [0.0, 2.0]]), 1000))

    def estimate() -> Tensor:
        return objective(model, guide)(x, torch.tensor([0])) / 2

    assert_mean(repeated(estimate, parameters), [-exact, *wanted], largest_error=0.01)


# Latents inside.


@pytest.mark.parametrize("inner", [ELBO(), IWAE(5), IWAE(5, "dreg"), ELBO(2, "stl")], ids=repr)
def test_inner_bounds_of_latents(inner: Any) -> None:
    """The exact posterior inside gives what the exact density gives."""
    model, x = factor_analysis(), table()
    exact, guide = VGI(Chains(x, 2)), exact_guide(model)
    posterior = AmortizedNormal(in_features=D, latent_features=2, hidden=(), covariance="full")
    origin = model.posterior(torch.zeros(1, D))
    with torch.no_grad():
        layer = posterior.encoding.head.layers[0]
        tril = origin.scale_tril[0]
        layer.weight.zero_()
        layer.weight[:2] = (model.posterior(torch.eye(D)).mean - origin.mean).T
        diagonal = (tril.diagonal() - 1e-6).expm1().log()
        layer.bias.copy_(torch.cat([origin.mean[0], diagonal, tril[1, :1]]))
    inside = GibbsGuide(guide.conditionals, posterior)
    bounds = []
    for objective, programs in (
        (exact, (Completed(model), guide)),
        (VGI(Chains(x, 2), inner=inner), (Completed(model, exact=False), inside)),
    ):
        pyro.set_rng_seed(3)
        bounds.append(objective.bound(*programs, *everything(x)))
    torch.testing.assert_close(*bounds)


def test_path_of_an_entry_goes_through_the_posterior_too() -> None:
    """Its gradient by finite differences of the inner bound, at common random numbers."""
    x = table(3)
    model = VAE(D, 2, (5,), "gaussian")
    posterior = AmortizedNormal(in_features=D, latent_features=2, hidden=(5,))
    guide = GibbsGuide(GibbsConditionals(D, hidden=()), posterior)
    bias = guide.conditionals.head.bias

    def loss() -> Tensor:
        pyro.set_rng_seed(1)
        return VGI(Chains(x, 3), num_updates=0)(model, guide)(*first(x))

    (slope,) = torch.autograd.grad(loss(), bias)
    with torch.no_grad():
        for entry in ((1, 0), (1, 1)):
            values = []
            for step in (1e-6, -1e-6):
                bias[entry] += step
                values.append(loss().item())
                bias[entry] -= step
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope[entry].item(), rel=1e-4)


# Chains.


def test_only_training_moves_the_chains_and_only_of_its_rows() -> None:
    model, x = factor_analysis(), table(8)
    guide, chains = GibbsGuide(GibbsConditionals(D)), Chains(x, 3)
    objective, start = VGI(chains), chains.values.clone()
    part = torch.tensor([5, 3])
    objective.bound(Completed(model), guide, x[part], part)
    objective.loss(Completed(model), guide, x[part], part)
    assert torch.equal(chains.values, start)
    objective(Completed(model), guide)(x[part], part)
    changed = (chains.values != start).any(1)
    assert changed[part].any()
    assert not (changed & ~x.isnan()).any()
    others = torch.tensor([0, 1, 2, 4, 6, 7])
    assert not changed[others].any()


def test_a_sweep_updates_all_that_is_missing() -> None:
    model, x = factor_analysis(), table(8)
    chains = Chains(x, 3)
    start = chains.values.clone()
    objective = VGI(chains, num_updates=3)
    objective(Completed(model), GibbsGuide(GibbsConditionals(D)))(*everything(x))
    assert torch.equal((chains.values != start).all(1), x.isnan())


def test_start_is_of_observed_entries() -> None:
    x = torch.tensor([[NAN, 1.0], [2.0, NAN], [3.0, 5.0]])
    chains = Chains(x, 200)
    assert set(chains.values[0, :, 0].tolist()) == {2.0, 3.0}
    assert set(chains.values[1, :, 1].tolist()) == {1.0, 5.0}
    assert torch.equal(chains.values[2], x[2].expand(200, -1))
    assert torch.equal(Chains(x, 200).values, chains.values)
    assert not torch.equal(Chains(x, 200, seed=1).values, chains.values)


def test_draws_that_are_not_finite_are_not_kept() -> None:
    x = table(4)
    chains = Chains(x, 2)
    start = chains.values.clone()
    rows = chains.completed(*everything(x)).clone()
    rows[0, 1, 0], rows[1, 1, 0] = torch.inf, 7.0
    chains.keep(torch.arange(4), rows)
    assert chains.values[1, 0, 0] == start[1, 0, 0]
    assert chains.values[1, 1, 0] == 7.0


def test_chains_follow_the_dtype_of_the_guide() -> None:
    x = table(4)
    chains = Chains(x, 2)
    guide = GibbsGuide(GibbsConditionals(D)).float()
    objective = VGI(chains)
    bound = objective.bound(Completed(factor_analysis().float()), guide, *everything(x))
    assert (bound.dtype, chains.values.dtype) == (torch.float32, torch.float32)


# Warm-up.


def test_warm_up_trains_both_on_chains_that_rest() -> None:
    model, x = factor_analysis(), table()
    chains, guide = Chains(x, 2000), exact_guide(model)
    objective, start = VGI(chains, warmup=1), chains.values.clone()
    loss = objective(Completed(model), guide)(*everything(x))
    assert torch.equal(chains.values, start)
    scores, variance = marginal(model).log_prob(chains.values).mean(1), torch.zeros(())
    for row, states in enumerate(chains.values):
        seen = (~x[row].isnan()).nonzero().flatten()
        each = [
            guide.conditionals(states, torch.full((2000,), int(j))).log_prob(states[:, j])
            for j in seen
        ]
        scores[row] += torch.stack(each).mean()
        variance += torch.stack(each).var(0, correction=0).mean() / 2000  # of the entry chosen
    assert abs(loss + scores.sum()) < 4 * variance.sqrt()
    assert variance.sqrt() < 0.1
    found = torch.autograd.grad(loss, list(trainable(model, guide).values()))
    assert all(bool(gradient.any()) for gradient in found)
    objective(Completed(model), guide)(*everything(x))
    assert not torch.equal(chains.values, start)


def test_hidden_entries_are_not_read() -> None:
    for conditionals in (
        GibbsConditionals(D),
        GibbsConditionals(D, separate=True, hidden=(3,), num_components=2),
    ):
        x, column = torch.randn(D, D), torch.arange(D)
        other = x + 9 * torch.eye(D)
        q, same = conditionals(x, column), conditionals(other, column)
        assert torch.equal(q.loc, same.loc)
        moved = conditionals(x.roll(1, 0), column)
        assert not torch.equal(q.loc, moved.loc)


# Training loops.


def test_entry_points_agree() -> None:
    model, x = factor_analysis(), table()
    guide = GibbsGuide(GibbsConditionals(D))
    values = []
    for name in ("loss", "loss_and_grads", "differentiable_loss"):
        objective = VGI(Chains(x, 3))
        pyro.set_rng_seed(1)
        value = getattr(objective, name)(Completed(model), guide, *everything(x))
        values.append(torch.as_tensor(value).item())
    assert values == pytest.approx(3 * values[:1])


def test_svi_trains_model_and_conditionals() -> None:
    model, x = Completed(factor_analysis()), table(40)
    guide = GibbsGuide(GibbsConditionals(D))
    before = {n: p.detach().clone() for n, p in trainable(model, guide).items()}
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), VGI(Chains(x, 3)))
    for _ in range(3):
        svi.step(*everything(x))
    after = trainable(model, guide)
    still = [name for name, p in after.items() if torch.equal(p, before[name])]
    assert not still


def test_state_dict_goes_on_exactly() -> None:
    model, x = factor_analysis(), table()
    guide = GibbsGuide(GibbsConditionals(D))
    one, other = VGI(Chains(x, 3), warmup=1), VGI(Chains(x, 3, seed=8), warmup=1)
    for _ in range(3):
        one(Completed(model), guide)(*everything(x))
    other.load_state_dict(deepcopy(one.state_dict()))
    losses = []
    for objective in (one, other):
        pyro.set_rng_seed(1)
        losses.append(objective(Completed(model), guide)(*everything(x)))
    assert losses[0] == losses[1]
    assert torch.equal(one.chains.values, other.chains.values)


# Bad input.

X = torch.tensor([[0.1, NAN, 2.0], [0.3, 0.2, 1.0]])
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Chains(X[0]), DataError, r"x: expected shape \(rows, columns\), got \(3,\)"),
    (lambda: Chains(X[:0]), DataError, r"x: expected shape \(rows, columns\), got \(0, 3\)"),
    (lambda: Chains(X / 0), DataError, r"x: expected finite numbers and NaN, got infinite .* \[0"),
    (lambda: Chains(X[:1]), DataError, r"column 1 of x: expected observed entries, got none"),
    (lambda: Chains(X, 0), ProgramError, r"num_chains: expected an integer >= 1, got 0"),
    (lambda: VGI(Chains(X), num_targets=0), ProgramError, "num_targets: .* got 0"),
    (lambda: VGI(Chains(X), block_size=0), ProgramError, "block_size: .* got 0"),
    (lambda: VGI(Chains(X), inner=ReweightedWakeSleep()), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X), inner=AlphaDivergence(2)), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X), inner=VGI(Chains(X))), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X, 2)).chains.load_state_dict({"values": torch.zeros(2, 5, 3)}),
     CheckpointError, r"saved chains: .* \(2, 2, 3\), got \(2, 5, 3\)"),
    (lambda: Completed(VAE(3), exact=True), ProgramError, "model: expected one with log_evidence"),
    (lambda: GibbsConditionals(3, num_classes=(2,)), ProgramError, "num_classes: expected 3 num"),
    (lambda: GibbsConditionals(3, separate=True, encoder=nn.Linear(3, 3)), ProgramError,
     "encoder: expected None where columns share nothing, got separate=True beside a Linear"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


CALLS: list[tuple[tuple[Any, ...], str]] = [
    ((X,), "index: expected the number of each row, beside rows with missing entries, got none"),
    ((X, torch.tensor([0, 2])), "index: expected rows 0 to 1, got 2"),
    ((X, torch.tensor([0, -1])), "index: expected rows 0 to 1, got -1"),
    ((X, torch.tensor([1, 0])), "index: expected row 1 of the chains, got other observed .* row 0"),
    ((X, torch.tensor([0.0, 1.0])), r"index: expected 2 row numbers, integers, got torch.float32"),
    ((X, torch.tensor([0])), r"index: expected 2 row numbers, integers, got .* shape \(1,\)"),
    ((X[:, :2], torch.arange(2)), r"x: expected shape \(batch, 3\)"),
    ((torch.tensor([[0.1, NAN, 7.0]]), [0]), "column 2 of x: expected classes 0 to 3, .* got 7 in"),
    ((torch.tensor([[0.1, NAN, 0.5]]), [0]), "column 2 of x: expected classes 0 to 3, .* got 0.5"),
    (
        (torch.tensor([[torch.inf, NAN, 0.0]]), [0]),
        "column 0 of x: expected finite numbers, .* inf",
    ),
]


@pytest.mark.parametrize(("args", "message"), CALLS)
def test_wrong_data(args: tuple[Any, ...], message: str) -> None:
    guide = GibbsGuide(GibbsConditionals(3, num_classes=(0, 0, 4)))
    with pytest.raises(DataError, match=message):
        VGI(Chains(X, 2)).bound(Pair(), guide, *args)


def test_programs_that_do_not_fit() -> None:
    x = torch.tensor([[0.1, NAN, 2.0], [0.3, 0.2, 1.0]])
    objective, index = VGI(Chains(x, 2)), torch.arange(2)
    with pytest.raises(ProgramError, match="guide: expected one with conditionals, got a Amort"):
        objective.bound(VAE(3), AmortizedNormal(in_features=3), x, index)
    guide = GibbsGuide(GibbsConditionals(3), AmortizedNormal(in_features=3, num_data=20))
    with pytest.raises(ProgramError, match=r"model: .* got a scale of .*\nTry: Leave num_data out"):
        objective.bound(VAE(3, likelihood="gaussian", num_data=20), guide, x, index)

    def pooled(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(z, torch.ones(3)).to_event(1), obs=x)

    class Latent(PyroModule):
        def forward(self, x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(ProgramError, match="model: expected independent rows, a bound each, got"):
        objective.bound(pooled, GibbsGuide(GibbsConditionals(3), Latent()), x, index)
