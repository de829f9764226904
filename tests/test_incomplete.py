"""Models and encoders of incomplete data: what is missing counts as nothing.

An absolute tolerance of 1e-10 is rounding in float64.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from imputed_models import posterior_guide
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import Incomplete, half, hide, mcar, observed_part
from pyro_lvm.models import VAE, FactorAnalysis
from pyro_lvm.nn import MLP, ConvEncoder, SetEncoder, ZeroImputing
from pyro_lvm.objectives import ELBO, IWAE

NAN = torch.nan


@pytest.mark.usefixtures("float64")
def test_evidence_of_what_is_observed() -> None:
    """With the exact posterior as guide, the bound is that of the marginal Gaussian."""
    model = FactorAnalysis(4, 2)
    with torch.no_grad():
        model.loading.normal_()
    x = hide(torch.randn(6, 4), mcar(torch.zeros(6, 4)))
    x[0], x[1] = NAN, torch.randn(4)

    covariance = model.loading @ model.loading.T + torch.eye(4)
    exact = []
    for row in x:
        o = ~row.isnan()
        marginal = dist.MultivariateNormal(torch.zeros(int(o.sum())), covariance[o][:, o])
        exact.append(marginal.log_prob(row[o]) if o.any() else torch.zeros(()))
    bound = IWAE(3).bound(Incomplete(model), posterior_guide(model), x)
    torch.testing.assert_close(bound, torch.stack(exact).detach(), atol=1e-10, rtol=0)
    assert bound[0].abs() < 1e-12


def test_complete_data_are_scored_as_before() -> None:
    model, guide = VAE(4, 2, (8,), "gaussian"), AmortizedNormal(in_features=4, latent_features=2)
    x = torch.randn(5, 4)
    bounds = []
    for program in (model, Incomplete(model)):
        pyro.set_rng_seed(1)
        bounds.append(IWAE(3).bound(program, guide, x))
    torch.testing.assert_close(*bounds)
    assert Incomplete(model)(size=3).shape == (3, 4)


def test_training_with_svi() -> None:
    """In Pyro's store the parameters have the names of the model alone."""
    x = hide(torch.randn(20, 4), mcar(torch.zeros(20, 4)))
    model = FactorAnalysis(4, 2)
    encoder = ZeroImputing(MLP(8, None, (9,)))
    guide = AmortizedNormal(encoder, encoder_features=9, latent_features=2)
    svi = SVI(Incomplete(model), guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    before = model.loading.detach().clone()
    assert svi.step(x) > 0
    assert (model.loading != before).all()
    assert "FactorAnalysis.loading" in pyro.get_param_store()


def test_observed_part_of_masked_entries() -> None:
    """Both masks count."""
    fn = dist.Normal(torch.zeros(3), 1.0).mask(torch.tensor([True, True, False])).to_event(1)
    part = observed_part(fn, torch.tensor([True, False, True]))
    torch.testing.assert_close(
        part.log_prob(torch.ones(3)), dist.Normal(0.0, 1.0).log_prob(torch.ones(()))
    )


def test_dependent_entries_cannot_be_left_out() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), obs=x)

    with explained(ProgramError, "site 'y'", "independent", "MultivariateNormal", "to_event"):
        Incomplete(model)(torch.tensor([[0.0, NAN]]))


def test_factors_and_integers_stay() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.factor("prior", torch.zeros(len(x)))
            pyro.sample("x", dist.Poisson(torch.ones(())), obs=x)

    trace = pyro.poutine.trace(Incomplete(model)).get_trace(torch.tensor([1, 2]))
    assert trace.log_prob_sum().isfinite()


# Encoders.


def encoders() -> dict[str, nn.Module]:
    return {
        "zero": ZeroImputing(MLP(8, None, (9,))),
        "set": SetEncoder(4, hidden=(9,)),
    }


@pytest.mark.parametrize("name", encoders())
def test_unobserved_entries_change_nothing(name: str) -> None:
    """Neither the output nor a gradient, whatever stands there."""
    encoder = encoders()[name]
    x, observed = torch.randn(6, 4), mcar(torch.zeros(6, 4))
    observed[0] = False
    results = []
    for filler, *mask in [(NAN,), (0.0, observed), (-7.0, observed), (torch.inf, observed)]:
        filled = torch.where(observed, x, filler).requires_grad_()
        features = encoder(filled, *mask)
        gradients = torch.autograd.grad(features.square().sum(), [*encoder.parameters(), filled])
        results.append((features, *gradients))
    for result in results:
        assert all(bool(part.isfinite().all()) for part in result)
        assert (result[-1][~observed] == 0).all()
        torch.testing.assert_close(result, results[0], atol=0, rtol=0)


@pytest.mark.parametrize("name", ["zero", "set"])
def test_a_zero_is_not_a_hole(name: str) -> None:
    encoder = encoders()[name]
    full, hole = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[NAN, 1.0, 2.0, 3.0]])
    assert (encoder(full) - encoder(hole)).abs().max() > 1e-4


def test_set_encoder_sums_over_entries() -> None:
    """Before its last network, the features of entries add up."""
    encoder = SetEncoder(3, hidden=())
    whole = encoder(torch.tensor([[1.0, -2.0, NAN]]))
    parts = encoder(torch.tensor([[1.0, NAN, NAN], [NAN, -2.0, NAN]]))
    torch.testing.assert_close(whole[0], parts.sum(0))
    assert (encoder(torch.full((1, 3), NAN)) == 0).all()


def test_pictures_with_holes() -> None:
    encoder = ZeroImputing(ConvEncoder(8, in_channels=2, channels=(4,)))
    x = torch.randn(5, 1, 8, 8)
    assert encoder(hide(x, half(x))).shape == (5, encoder.out_features)
