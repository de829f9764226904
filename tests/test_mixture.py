"""Gaussian mixtures: against torch's own mixture and Bayes' rule, in float64."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_models import check_exact_guide, check_gradients, check_scale, nothing
from explained import explained
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.models import GaussianMixture
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.oracles import expected_bound

pytestmark = pytest.mark.usefixtures("float64")


def drawn(**options) -> GaussianMixture:
    model = GaussianMixture(2, 3, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def x() -> Tensor:
    return 2 * torch.randn(8, 2)


def reference(model: GaussianMixture) -> torch.distributions.MixtureSameFamily:
    parts = dist.Normal(model.components.loc, model.components.scale).to_event(1)
    weights = torch.distributions.Categorical(logits=model.logits)
    return torch.distributions.MixtureSameFamily(weights, parts)


def test_evidence_and_its_gradient(x) -> None:
    model = drawn()
    exact = reference(model).log_prob(x)
    torch.testing.assert_close(model.log_evidence(x), exact, atol=1e-12, rtol=0)
    check_gradients(exact.sum(), model, x)


def test_posterior_is_bayes_rule(x) -> None:
    model = drawn()
    prior = torch.softmax(model.logits, -1)
    joint = torch.stack([prior[c] * model.components(torch.tensor(c)).log_prob(x).exp()
                         for c in range(3)], -1)  # fmt: skip
    exact = joint / joint.sum(-1, keepdim=True)
    torch.testing.assert_close(model.responsibilities(x), exact)
    torch.testing.assert_close(model.posterior(x).probs, exact)


def test_exact_guide(x) -> None:
    check_exact_guide(drawn(), x)


def test_exact_guide_of_part_of_the_data(x) -> None:
    check_scale(drawn, x)


def test_maximum_likelihood_without_sampling() -> None:
    """Two clear clusters: the best scale, weight and means are those of the clusters."""
    clusters = torch.tensor([-3.0, 3.0, 3.0]).repeat(100)[:, None] + 0.5 * torch.randn(300, 1)
    model = GaussianMixture(1, 2)
    torch.nn.init.constant_(model.components.loc[0], -1.0)
    torch.nn.init.constant_(model.components.loc[1], 1.0)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -model.log_evidence(clusters).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    groups = [clusters[clusters < 0], clusters[clusters > 0]]
    means = torch.stack([group.mean() for group in groups])
    scales = torch.stack([group.std(correction=0) for group in groups])
    torch.testing.assert_close(model.components.loc[:, 0], means, atol=1e-3, rtol=0)
    torch.testing.assert_close(model.components.scale[:, 0], scales, atol=1e-3, rtol=0)
    torch.testing.assert_close(model.responsibilities(clusters).mean(0)[0], torch.tensor(1 / 3))


# Summed out.


def test_enumerated_by_pyro(x) -> None:
    model = drawn(enumerate_latents=True)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, nothing, x)
    torch.testing.assert_close(loss, -model.log_evidence(x).sum())
    check_gradients(-loss, model, x)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(3), IWAE(5)], ids=repr)
def test_enumerated_by_our_objectives(objective, x) -> None:
    model = drawn(enumerate_latents=True, num_data=5 * len(x))
    torch.testing.assert_close(objective.bound(model, nothing, x), model.log_evidence(x))
    check_gradients(-objective.differentiable_loss(model, nothing, x) / 5, model, x)


def test_a_guide_that_draws_the_component_comes_first(x) -> None:
    check_exact_guide(drawn(enumerate_latents=True), x)


# A guide that is not exact.


def tempered(model: GaussianMixture):
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=0.4 * model.posterior(x).logits))

    return guide


def test_a_wrong_guide_has_the_bounds_that_it_should(x) -> None:
    model = drawn()
    x = x / 4  # where the components overlap
    exact = model.log_evidence(x)
    log_posterior = model.posterior(x).logits
    log_q = torch.log_softmax(0.4 * log_posterior, -1)
    log_weights = exact[:, None] + log_posterior - log_q
    elbo = (log_q.exp() * log_weights).sum(-1)
    tight = torch.stack(
        [expected_bound(w, q.exp(), 50) for w, q in zip(log_weights, log_q, strict=True)]
    )
    with torch.no_grad():
        for objective, mean in ((ELBO(10), elbo), (IWAE(50), tight)):
            bounds = [objective.bound(model, tempered(model), x) for _ in range(500)]
            total = torch.stack(bounds).sum(-1)
            error = total.std() / len(total) ** 0.5
            assert error < 0.1 * (exact - elbo).sum()
            assert abs(total.mean() - mean.sum()) < 4 * error
    assert all(worse.sum() < better.sum() for worse, better in pairwise([elbo, tight, exact]))
    assert (exact - tight).sum() < 0.05 * (exact - elbo).sum()


# Errors.


@pytest.mark.parametrize("name", ["in_features", "num_components", "num_data"])
def test_sizes(name) -> None:
    with explained(ProgramError, name, "an integer >= 1", "0", f"Check {name}"):
        GaussianMixture(**{name: 0})


@pytest.mark.parametrize("method", ["log_evidence", "posterior", "responsibilities", "exact_guide"])
def test_data_of_another_size(method) -> None:
    with explained(DataError, "x", "shape (batch, 2)", "shape (4, 3)", "Check in_features"):
        getattr(drawn(), method)(torch.zeros(4, 3))
