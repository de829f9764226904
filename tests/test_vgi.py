"""Variational Gibbs inference against the exact answers of factor analysis.

Where conditionals are exact, a row with one hole has a bound without noise; elsewhere means are
compared within four or five of their own standard errors.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from gibbs_parts import D, exact_guide, factor_analysis, given_observed, log_p_observed, marginal
from torch.distributions import kl_divergence
from vgi_parts import NAN, everything, first, table, trainable

from pyro_lvm.chains import random_scan
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed
from pyro_lvm.objectives import ELBO, IWAE, VGI

pytestmark = pytest.mark.usefixtures("float64")


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
