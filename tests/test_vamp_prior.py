"""Priors made of the guide's posteriors, and semi-implicit ones, against exact evidence.

The decoder is the identity with Normal noise and the guide is linear, so the evidence under
any of these priors is a mixture of Normals that can be written down.
"""

import itertools
from copy import deepcopy
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from standard_errors import mean_and_error
from torch import Tensor, nn

from pyro_lvm.data import pseudo_inputs
from pyro_lvm.distributions import (
    AggregatedPrior,
    ConditionalFlow,
    GuidePosterior,
    SemiImplicitPrior,
    VampPrior,
)
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AmortizedFlow, AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.nn import MLP, ConditionalNormal
from pyro_lvm.objectives import DSIVI, ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

MAX_Z = 5.0  # standard errors
SIZE = 3
NOISE = 0.3  # of the data given z, and of z given the data
KINDS = ["diagonal", "low_rank", "full"]


def linear_guide(scale: float = NOISE) -> AmortizedNormal:
    """Normal(x, scale)."""
    guide = AmortizedNormal(in_features=SIZE, latent_features=SIZE, hidden=())
    layer = guide.encoding.head.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:SIZE] = torch.eye(SIZE)
        layer.bias[SIZE:] = log(torch.tensor(scale).expm1())
    return guide


def identity_model(prior: nn.Module) -> VAE:
    """x | z ~ Normal(z, NOISE)."""
    model = VAE(SIZE, SIZE, (), "gaussian", prior=prior)
    layer = model.decoder.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.eye(SIZE))
        layer.bias.zero_()
    model.likelihood.noise_scale = torch.full((SIZE,), NOISE)
    return model


def log_evidence(x: Tensor, rows: Tensor, scale: float = NOISE) -> Tensor:
    """log p(x) under the mixture of Normal(row, scale) over ``rows``."""
    wide = (scale**2 + NOISE**2) ** 0.5
    terms = dist.Normal(rows, wide).to_event(1).log_prob(x[:, None])
    return terms.logsumexp(-1) - log(len(rows))


# The exact mixture


@pytest.mark.parametrize("covariance", KINDS)
def test_density_is_that_of_the_mixture(covariance: str) -> None:
    guide = AmortizedNormal(in_features=6, latent_features=SIZE, covariance=covariance)
    inputs, z = torch.rand(10, 6), torch.randn(7, 5, SIZE)
    found = VampPrior(guide, inputs)()
    assert (found.batch_shape, found.event_shape) == ((), (SIZE,))
    each = torch.stack([guide.posterior(row[None])["z"].log_prob(z) for row in inputs])
    torch.testing.assert_close(found.log_prob(z), each.logsumexp(0) - log(10))


def test_weights_have_the_evidence_as_mean() -> None:
    rows = 2 * torch.randn(20, SIZE)
    model, guide = identity_model(VampPrior(linear_guide(), rows)), linear_guide(1.5 * NOISE)
    x = model(size=6).detach()
    weights = IWAE(50_000).log_weights(model, guide, x) - log_evidence(x, rows)
    error = weights.exp().std(0) / 50_000**0.5
    assert ((weights.exp().mean(0) - 1).abs() < MAX_Z * error).all()
    assert (error < 0.05).all()


def test_guide_keeps_its_parameters_and_is_trained_by_the_prior() -> None:
    guide = AmortizedNormal(in_features=6, latent_features=2, hidden=(4,))
    model = VAE(6, 2, (4,), prior=VampPrior(guide, torch.rand(10, 6)))
    assert {n for n, _ in model.named_parameters() if "prior" in n} == {"prior.inputs"}
    model.prior().log_prob(torch.zeros(2)).backward()
    assert all(p.grad is not None and p.grad.any() for p in guide.parameters())
    assert model.prior.inputs.grad.any()


def test_copies_stay_together_and_move_together() -> None:
    guide = AmortizedNormal(in_features=6, latent_features=2)
    model = VAE(6, 2, prior=VampPrior(guide, torch.rand(10, 6)))
    copied_model, copied_guide = deepcopy((model, guide))
    assert copied_model.prior.posterior._used[0] is copied_guide
    model.float()
    assert {p.dtype for p in guide.parameters()} == {torch.float32}
    assert model(size=3).dtype == torch.float32


def test_inputs_may_be_fixed_or_integers() -> None:
    guide = AmortizedNormal(in_features=6, latent_features=2)
    prior = VampPrior(guide, torch.ones(3, 6, dtype=torch.long), learn=False)
    assert not list(prior.parameters())
    assert "inputs" in prior.state_dict()
    assert prior.inputs.dtype == torch.float64


@pytest.mark.parametrize(
    ("plain", "other"), [(ELBO(), ELBO(gradient="stl")), (IWAE(3), IWAE(3, gradient="dreg"))]
)
def test_other_gradients_agree_with_the_plain_one(plain: Any, other: Any) -> None:
    """Though the guide's parameters are in the model's density too."""
    guide = AmortizedNormal(in_features=2, latent_features=1, hidden=(3,))
    model = VAE(2, 1, (), "gaussian", prior=VampPrior(guide, torch.randn(4, 2)))
    x = torch.randn(1, 2).expand(1000, 2)
    parameters = [*guide.parameters(), model.prior.inputs]

    def gradients(objective: Any) -> Tensor:
        found = []
        for _ in range(40):
            loss = objective.differentiable_loss(model, guide, x) / len(x)
            parts = torch.autograd.grad(loss, parameters)
            found.append(torch.cat([part.flatten() for part in parts]))
        return torch.stack(found)

    first, second = gradients(plain), gradients(other)
    error = ((first.var(0) + second.var(0)) / 40).sqrt()
    assert (error < 0.1 * first.mean(0).abs().max()).all()
    assert ((first.mean(0) - second.mean(0)).abs() < MAX_Z * error + 1e-9).all()


def test_step_of_svi() -> None:
    guide = AmortizedNormal(in_features=6, latent_features=2, hidden=(4,))
    model = VAE(6, 2, (4,), prior=VampPrior(guide, torch.rand(10, 6)))
    everything = [*model.named_parameters(), *guide.named_parameters()]
    before = [p.detach().clone() for _, p in everything]
    with pyro.settings.context(module_local_params=False):
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ELBO())
        svi.step(torch.rand(5, 6).round())
    for (name, after), old in zip(everything, before, strict=True):
        assert not torch.equal(after, old), name


# The same mixture, a few rows at a time


@pytest.mark.parametrize("share", [True, False])
def test_aggregated_bound_is_below_the_evidence_and_rises_to_it(share: bool) -> None:
    """The guide is near the posterior; what is missing is what J' rows miss of 40."""
    rows, guide = 2 * torch.randn(40, SIZE), linear_guide()
    model = identity_model(AggregatedPrior(guide, rows))
    x = model(size=30).detach()
    exact, means = log_evidence(x, rows), []
    for count in (2, 20, 200):
        objective = DSIVI(10, num_prior_mixing=count, share_prior_mixing=share)
        bounds = [(objective.bound(model, guide, x) - exact).mean() for _ in range(20)]
        mean, error = mean_and_error(torch.stack(bounds))
        assert mean < MAX_Z * error
        means.append(mean.item())
    assert all(above > below for below, above in itertools.pairwise(means))
    assert means[-1] > -0.5  # over seeds -0.3 and above


def test_aggregated_weights_have_the_evidence_as_mean() -> None:
    rows = torch.randn(8, SIZE)
    model = identity_model(AggregatedPrior(linear_guide(), rows))
    x = model(size=5).detach()
    objective = DSIVI(40_000, num_prior_mixing=4, share_prior_mixing=False)
    log_weights = objective.log_weights(model, linear_guide(1.5 * NOISE), x)
    weights = (log_weights - log_evidence(x, rows)).exp()
    error = weights.std(0) / 40_000**0.5
    assert ((weights.mean(0) - 1).abs() < MAX_Z * error).all()
    assert (error < 0.05).all()


def test_own_pseudo_input_breaks_the_bound() -> None:
    """A minibatch as its own set of pseudo-inputs, beside rows drawn without regard to it."""
    rows = 2 * torch.randn(1000, SIZE)
    guide, x = linear_guide(), rows[:50]
    exact = log_evidence(x, rows).mean()  # each datum is among its rows, and counts 1/1000
    apart = log_evidence(x, rows[50:]).mean()
    own = ELBO(100).bound(identity_model(VampPrior(guide, x)), guide, x)
    objective = DSIVI(50, num_prior_mixing=50)

    def honest(prior: AggregatedPrior) -> tuple[Tensor, Tensor]:
        model = identity_model(prior)
        return mean_and_error(
            torch.stack([objective.bound(model, guide, x).mean() for _ in range(15)])
        )

    assert own.mean() > exact + 1.0
    assert own.mean() > apart + 1.0
    for known, drawn in ((exact, rows), (apart, rows[50:])):
        mean, error = honest(AggregatedPrior(guide, drawn))
        assert mean + MAX_Z * error < known


def test_pseudo_inputs_are_kept_apart() -> None:
    rows = torch.randn(20, SIZE)
    inputs, others = pseudo_inputs(rows, 7, torch.Generator().manual_seed(1))
    assert not (others[:, None] == inputs).all(-1).any()
    both = torch.cat([inputs, others])
    assert torch.equal(both[both[:, 0].argsort()], rows[rows[:, 0].argsort()])
    again, _ = pseudo_inputs(rows, 7, torch.Generator().manual_seed(1))
    other, _ = pseudo_inputs(rows, 7, torch.Generator().manual_seed(2))
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)


@pytest.mark.parametrize("count", [0, 20, -1])
def test_pseudo_inputs_leave_something_to_train_on(count: int) -> None:
    with explained(DataError, "count", "from 1 to 19", str(count), "Leave rows"):
        pseudo_inputs(torch.randn(20, SIZE), count)


def test_rows_are_drawn_evenly() -> None:
    guide = AmortizedNormal(in_features=1, latent_features=1)
    prior, seen = AggregatedPrior(guide, torch.arange(4.0)[:, None]), []
    prior.posterior.register_forward_hook(lambda _, inputs, posterior: seen.append(inputs[0]))
    with pyro.plate("data", 40_000):
        prior()
    frequency = seen[0].flatten().long().bincount() / 40_000
    assert ((frequency - 0.25).abs() < MAX_Z * (0.25 * 0.75 / 40_000) ** 0.5).all()


# Noise through a network


def gaussian_prior(features: int = SIZE) -> SemiImplicitPrior:
    """Normal(zeta, NOISE): z ~ Normal(0, (1 + NOISE^2)^0.5)."""
    conditional = ConditionalNormal(features, features, hidden=())
    layer = conditional.network.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:features] = torch.eye(features)
        layer.bias[features:] = log(torch.tensor(NOISE).expm1())
    return SemiImplicitPrior(conditional, features)


def test_semi_implicit_bound_is_below_the_evidence_and_rises_to_it() -> None:
    model, guide, x = identity_model(gaussian_prior()), linear_guide(), torch.randn(10, SIZE)
    wide = (1 + 2 * NOISE**2) ** 0.5
    exact = dist.Normal(torch.zeros(SIZE), wide).to_event(1).log_prob(x)
    means = []
    for count in (10, 100, 1000):
        objective = DSIVI(10, num_prior_mixing=count)
        bounds = [(objective.bound(model, guide, x) - exact).mean() for _ in range(20)]
        mean, error = mean_and_error(torch.stack(bounds))
        assert mean < MAX_Z * error
        means.append(mean.item())
    assert all(above > below for below, above in itertools.pairwise(means))
    assert means[-1] > -0.15


@pytest.mark.parametrize("covariance", KINDS)
def test_generator_of_pseudo_inputs(covariance: str) -> None:
    guide = AmortizedNormal(in_features=6, latent_features=2, hidden=(5,), covariance=covariance)
    generator = nn.Sequential(MLP(4, 6, (5,)), nn.Sigmoid(), GuidePosterior(guide))
    model = VAE(6, 2, (4,), prior=SemiImplicitPrior(generator, 4))
    DSIVI(3, num_prior_mixing=7)(model, guide)(torch.rand(5, 6).round()).backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("layered", [False, True])
def test_encoder_runs_once_for_each_prior_draw(layered: bool) -> None:
    """Whatever the number of particles and of data; the decoder sees particles alone."""
    sites = {"z1": 4, "z2": 2} if layered else {"z": 2}
    guide = AmortizedNormal(in_features=6, latent_features=sites)
    prior = AggregatedPrior(guide, torch.rand(30, 6), site=[*sites][-1])
    model, encoded, decoded = VAE(6, list(sites.values()), prior=prior), [], []
    guide.encoding.register_forward_hook(lambda _, x, y: encoded.append(len(y)))
    model.decoder.register_forward_hook(lambda _, z, y: decoded.append(tuple(y.shape[:-1])))
    DSIVI(3, num_prior_mixing=7, max_plate_nesting=1).loss(model, guide, torch.rand(5, 6).round())
    assert encoded == [5, 7]
    assert decoded == [(3, 5)]


@pytest.mark.parametrize("prior", ["aggregated", "semi-implicit"])
def test_objectives_that_do_not_average_refuse(prior: str) -> None:
    guide = linear_guide()
    made = AggregatedPrior(guide, torch.randn(4, SIZE)) if prior[0] == "a" else gaussian_prior()
    with explained(ProgramError, "auxiliary site 'zeta'", "density", "mixing variable", "DSIVI"):
        ELBO().loss(identity_model(made), guide, torch.randn(5, SIZE))


# What is refused


@pytest.mark.parametrize("rows", [torch.zeros(6), torch.zeros(0, 6), torch.zeros(2, 3, 2)])
@pytest.mark.parametrize("make", [VampPrior, AggregatedPrior])
def test_inputs_of_another_shape(make: Any, rows: Tensor) -> None:
    with explained(DataError, "inputs", "(C, D)", str(tuple(rows.shape)), "one flat row each"):
        make(AmortizedNormal(in_features=6, latent_features=2), rows)


def test_guide_without_a_posterior() -> None:
    flow = AmortizedFlow(in_features=6, latent_features=2)
    with explained(ProgramError, "guide", "posterior(x)", "AmortizedFlow", "AmortizedNormal"):
        VampPrior(flow, torch.rand(4, 6))


def test_posterior_that_is_no_normal() -> None:
    class Sharp(AmortizedNormal):
        def posterior(self, x: Tensor) -> dict[str, Any]:
            return {"z": dist.Laplace(x[:, :2], 1.0).to_event(1)}

    with explained(ProgramError, "guide", "is a Normal", "Independent", "AmortizedNormal"):
        VampPrior(Sharp(in_features=6, latent_features=2), torch.rand(4, 6))()


def test_site_that_the_guide_has_not() -> None:
    guide = AmortizedNormal(in_features=6, latent_features={"z1": 4, "z2": 2})
    with explained(ProgramError, "site", "'z'", "['z1', 'z2']", "site='z1'"):
        VampPrior(guide, torch.rand(4, 6))()


def test_prior_of_no_noise() -> None:
    with explained(ProgramError, "noise_features", ">= 1", "0", "noise_features"):
        SemiImplicitPrior(ConditionalFlow(2), 0)
