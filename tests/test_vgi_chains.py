"""Gibbs chains of a guide's conditionals on new rows, against exact conditional distributions."""

from collections.abc import Callable
from typing import Any

import arviz as az
import pytest
import torch
from gibbs_parts import D, exact_guide, factor_analysis, given_observed, marginal
from torch import Tensor

from pyro_lvm.chains import gibbs_chains
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide

pytestmark = pytest.mark.usefixtures("float64")

NAN = torch.nan


def rows() -> Tensor:
    x = marginal(factor_analysis()).sample((4,))
    x[0, [0, 1]] = NAN
    x[1, [1, 2, 3]] = NAN
    x[2] = NAN
    return x


def test_exact_conditionals_give_exact_draws() -> None:
    """Means and covariances of the missing, within four standard errors by ArviZ's ESS."""
    model, x = factor_analysis(), rows()
    chains = gibbs_chains(exact_guide(model), x, num_chains=4, num_draws=2000, burn_in=20)
    assert chains.shape == (4, 2000, 4, D)
    for row in range(3):
        missing = x[row].isnan()
        exact = given_observed(model, x[row])
        drawn = chains[:, :, row, missing]
        data = az.convert_to_inference_data({"x": drawn.numpy(force=True)})
        assert (az.rhat(data)["x"].values < 1.02).all()
        number = torch.as_tensor(az.ess(data)["x"].values)
        assert (number > 400).all()
        error = (drawn.mean((0, 1)) - exact.mean) / exact.stddev
        assert (error.abs() < 4 / number.sqrt()).all()
        scale = exact.stddev[:, None] * exact.stddev
        difference = (drawn.flatten(0, 1).T.cov() - exact.covariance_matrix) / scale
        assert (difference.abs() < 4 * (2 / number.min()).sqrt()).all()


def test_observed_entries_are_the_datas() -> None:
    x = rows()
    chains = gibbs_chains(GibbsGuide(GibbsConditionals(D)), x, num_draws=3, thinning=2)
    assert chains.shape == (4, 3, 4, D)
    seen = ~x.isnan()
    assert torch.equal(chains[..., seen], x[seen].expand(4, 3, -1))
    assert chains.isfinite().all()
    assert (chains[:, 1:, ~seen] != chains[:, :-1, ~seen]).all()


def test_rows_are_apart() -> None:
    """A row alone has the law it has beside others: none of its moves reads them."""
    x = torch.tensor([[NAN, 1.0, NAN, 0.0]])
    beside = torch.cat([x, torch.full((1, D), 1e6)])
    guide = exact_guide(factor_analysis())
    alone, accompanied = (gibbs_chains(guide, each, 400, 1)[:, 0, 0] for each in (x, beside))
    error = ((alone.var(0) + accompanied.var(0)) / 400).sqrt()
    assert ((alone.mean(0) - accompanied.mean(0)).abs() <= 4 * error).all()


def test_complete_rows_need_no_chains() -> None:
    x = torch.randn(3, D)
    assert torch.equal(gibbs_chains(GibbsGuide(GibbsConditionals(D)), x, 2, 5)[1, 4], x)


def test_classes_are_drawn_by_their_probabilities() -> None:
    guide = GibbsGuide(GibbsConditionals(2, num_classes=(0, 3), hidden=()))
    x = torch.tensor([[0.4, NAN]])
    chains = gibbs_chains(guide, x, 2000, 1)[:, 0, 0, 1]
    probability = guide.conditionals(x, torch.tensor([1])).classes.probs[0].detach()
    share = torch.stack([(chains == number).double().mean() for number in range(3)])
    limit = 4 * (probability * (1 - probability) / 2000).sqrt()
    assert ((share - probability).abs() < limit).all()


X = torch.zeros(2, 3)
WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda g: gibbs_chains(AmortizedNormal(), X), ProgramError, "guide: .* got a AmortizedNormal"),
    (lambda g: gibbs_chains(g, X, 0), ProgramError, "num_chains: expected an integer >= 1, got 0"),
    (lambda g: gibbs_chains(g, X, 1, 0), ProgramError, "num_draws: expected an integer >= 1"),
    (lambda g: gibbs_chains(g, X, burn_in=0), ProgramError, "burn_in: expected an integer >= 1"),
    (lambda g: gibbs_chains(g, X, thinning=0), ProgramError, "thinning: expected an integer >= 1"),
    (lambda g: gibbs_chains(g, X[:, :2]), DataError, r"x: expected shape \(batch, 3\)"),
    (lambda g: gibbs_chains(g, X + 4), DataError, "column 2 of x: expected classes 0 to 3, .* 4 "),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_wrong_arguments(make: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    guide = GibbsGuide(GibbsConditionals(3, num_classes=(0, 0, 4)))
    with pytest.raises(error, match=message):
        make(guide)
