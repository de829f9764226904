"""Steps of variational Gibbs inference: chains that move, the warm-up, training loops."""

from copy import deepcopy

import pyro
import pytest
import torch
from gibbs_parts import D, exact_guide, factor_analysis, marginal
from vgi_parts import NAN, everything, table, trainable

from pyro_lvm.guides import GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed
from pyro_lvm.objectives import VGI

pytestmark = pytest.mark.usefixtures("float64")


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
