"""Amortization and approximation gaps where both are known exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.diagnostics import AIS, amortization_gap, log_evidence, plot_amortization_gap
from pyro_lvm.diagnostics.local_guide import LocalGuide
from pyro_lvm.diagnostics.verdict import Status
from pyro_lvm.distributions.implicit import Implicit
from pyro_lvm.errors import DensityError, ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedFlow, AmortizedNormal
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.objectives import ELBO
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(8, 2) @ oracle.loading.T + torch.randn(8, 4) * oracle.noise


def bad_encoder(oracle: LinearGaussian, covariance: str) -> Callable[[Tensor], None]:
    """Means 0.4 off and deviations 0.7 times those of the posterior, full or diagonal."""

    def guide(x: Tensor) -> None:
        q = oracle.posterior(x)
        with pyro.plate("data", len(x)):
            if covariance == "full":
                tril = 0.7 * torch.linalg.cholesky(q.covariance_matrix)
                pyro.sample("z", dist.MultivariateNormal(q.loc + 0.4, scale_tril=tril))
            else:
                pyro.sample("z", dist.Normal(q.loc + 0.4, 0.7 * q.stddev).to_event(1))

    return guide


# Exact answers.


def test_full_covariance_lacks_nothing_but_the_encoder(oracle: LinearGaussian, x: Tensor) -> None:
    gap = amortization_gap(oracle.model, bad_encoder(oracle, "full"), x, num_steps=300)
    q = oracle.posterior(x)
    bad = dist.MultivariateNormal(q.loc + 0.4, 0.49 * q.covariance_matrix)
    kl = torch.distributions.kl_divergence(bad, q)
    # Path gradients end where the gradient is 0: over seeds 1e-7 is left.
    assert gap.approximation.abs().max() < 1e-6
    torch.testing.assert_close(gap.evidence.value, oracle.log_evidence(x), atol=1e-6, rtol=0)
    assert ((gap.amortization - kl) / gap.amortization_error).abs().max() < 4
    torch.testing.assert_close(gap.total, gap.approximation + gap.amortization)
    assert gap.amortization_error.max() < 0.1 < kl.min()


def test_mean_field_lacks_what_is_known_too() -> None:
    """The best independent Normals have the precisions' diagonal."""
    oracle = LinearGaussian(torch.tensor([[1.0, 1.0], [0.5, 1.0]]), torch.tensor([0.8, 1.0]))
    x = torch.tensor([[0.5, -1.0], [2.0, 1.0], [0.0, 0.0]])
    gap = amortization_gap(oracle.model, bad_encoder(oracle, "diagonal"), x, num_samples=20_000)
    precision = oracle.posterior(x).precision_matrix
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    exact = 0.5 * (diagonal.log().sum(-1) - torch.logdet(precision))
    error = torch.hypot(gap.local.mean_log_weight_error, gap.evidence.standard_error)
    assert ((gap.approximation - exact) / error).abs().max() < 4
    assert (exact / error).min() > 4, "a gap that could be seen to be missing"
    kl = oracle.log_evidence(x) - oracle.elbo(x, normal(oracle, x))
    assert ((gap.total - kl) / torch.hypot(gap.amortization_error, error)).abs().max() < 4


def normal(oracle: LinearGaussian, x: Tensor) -> dist.MultivariateNormal:
    q = oracle.posterior(x)
    return dist.MultivariateNormal(q.loc + 0.4, torch.diag_embed(0.49 * q.variance))


def test_discrete_latents_by_enumeration() -> None:
    """One switch a datum: the family has every distribution over it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(2.0 * c, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(torch.full_like(x, 0.5)))

    x = torch.tensor([-0.5, 1.0, 1.6])
    odds = torch.tensor(0.3 / 0.7).log() + 2 * x - 2
    posterior = dist.Bernoulli(logits=odds)
    kl = torch.distributions.kl_divergence(dist.Bernoulli(torch.full_like(x, 0.5)), posterior)
    gap = amortization_gap(model, guide, x, num_samples=4000)
    error = torch.hypot(gap.local.mean_log_weight_error, gap.evidence.standard_error)
    assert (gap.approximation.abs() < 4 * error).all()
    assert ((gap.amortization - kl).abs() < 4 * gap.amortization_error).all()
    assert error.max() < 0.01 < 1 < kl.max()


def test_levels_that_depend_on_each_other_keep_their_dependence() -> None:
    """z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(z2, 1): the guide's slope is right, its locs are not."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(top, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0 * x, 1.0))
            pyro.sample("z", dist.Normal(top / 2 + 0.1 * x, 0.5))

    x = torch.tensor([-2.0, 1.0])
    gap = amortization_gap(model, guide, x, num_steps=300)
    assert {n: o.shape for n, o in gap.guide.offsets.items()} == dict.fromkeys(
        ("top.loc", "top.scale", "z.loc", "z.scale"), torch.Size([2])
    )
    assert (gap.amortization > 0.1).all()
    # Path gradients end where the gradient is 0: over seeds 1e-7 is left.
    assert gap.approximation.abs().max() < 1e-6
    exact = dist.Normal(0.0, 3**0.5).log_prob(x)
    torch.testing.assert_close(gap.evidence.value, exact, atol=1e-6, rtol=0)


def test_constrained_parameters_and_supports() -> None:
    """The Gamma posterior of a Poisson rate is in the family of a bad Gamma."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(torch.full_like(x, 3.0), torch.full_like(x, 3.0)))

    x = torch.tensor([0.0, 4.0])
    kl = torch.distributions.kl_divergence(dist.Gamma(3.0, 3.0), dist.Gamma(2 + x, 2.0))
    gap = amortization_gap(model, guide, x, num_steps=300)
    assert gap.approximation.abs().max() < 5e-4  # over seeds 0.0002
    assert ((gap.amortization - kl).abs() < 4 * gap.amortization_error).all()


# Programs of other kinds.


def test_an_untouched_guide_is_itself(oracle: LinearGaussian, x: Tensor) -> None:
    for guide in (bad_encoder(oracle, "full"), bad_encoder(oracle, "diagonal")):
        local = LocalGuide(guide, (x,), {})
        pyro.set_rng_seed(1)
        expected = ELBO(3).log_weights(oracle.model, guide, x)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(ELBO(3).log_weights(oracle.model, local, x), expected)


def test_a_flow_has_a_context_of_each_datum(oracle: LinearGaussian, x: Tensor) -> None:
    guide = AmortizedFlow(
        in_features=4, latent_features={"z": 2}, hidden=(8,), context_features=5, family="maf"
    )
    before = {n: p.detach().clone() for n, p in guide.named_parameters()}
    gap = amortization_gap(oracle.model, guide, x, num_steps=100)
    assert {n: o.shape for n, o in gap.guide.offsets.items()} == {"z.context": torch.Size([8, 5])}
    error = gap.amortization_error.square().sum().sqrt()
    assert gap.amortization.sum() > 5 * error, "the encoder is untrained"
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in guide.named_parameters())


def test_modules_and_given_evidence() -> None:
    model = FactorAnalysis(in_features=5, latent_features=2)
    guide = AmortizedNormal(in_features=5, latent_features=2, hidden=(8,))
    x = model(size=6).detach()
    evidence = log_evidence(model, guide, x, method=AIS(20, 3), num_samples=16)
    gap = amortization_gap(model, guide, x, num_steps=30, evidence=evidence)
    assert gap.evidence is evidence
    assert all(p.grad is None for p in [*model.parameters(), *guide.parameters()])
    assert gap.history.shape == (30,)
    assert gap.history[-5:].mean() > gap.history[:5].mean()


def test_a_random_minibatch_is_one(oracle: LinearGaussian) -> None:
    """Rows so far apart that an offset of another row's would show."""
    x = torch.arange(20.0)[:, None] * torch.ones(4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 20, subsample_size=3) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x[index])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 20, subsample_size=3) as index:
            q = oracle.posterior(x[index])
            pyro.sample("z", dist.MultivariateNormal(q.loc + 0.4, q.covariance_matrix))

    gap = amortization_gap(model, guide, x, num_steps=300)
    exact = oracle.log_evidence(x)
    # Path gradients end where the gradient is 0: over seeds 1e-7 is left.
    assert ((gap.evidence.value[:, None] - exact).abs().min(1).values < 1e-6).all()
    shift = torch.full((2,), 0.4)
    kl = 0.5 * shift @ oracle.posterior(x).precision_matrix[0] @ shift
    assert ((gap.amortization - kl).abs() < 4 * gap.amortization_error).all()
    assert abs(gap.history[-1] - gap.local.mean_log_weight.mean()) < 1e-5, "per datum, not scaled"


# What it says.


def test_summary_verdict_and_figure(oracle: LinearGaussian, x: Tensor, tmp_path: Path) -> None:
    gap = amortization_gap(oracle.model, bad_encoder(oracle, "full"), x, num_steps=200)
    told = gap.summary()
    assert set(told) == {
        "gap",
        "approximation_gap",
        "amortization_gap",
        "amortization_gap_error",
        "amortization_gap_max",
        "khat_high",
    }
    assert told["amortization_gap"] == gap.amortization.mean().item()
    verdict = gap.verdict()
    assert verdict.status is Status.WARN
    assert "SemiAmortized" in verdict.advice
    good = amortization_gap(oracle.model, oracle.exact_guide, x, num_steps=5)
    assert good.verdict().status is Status.PASS
    assert good.total.abs().max() < 1e-2, "five steps from where it was right"  # over seeds 0.003
    figure = plot_amortization_gap(gap)
    figure.savefig(tmp_path / "gap.png")
    assert [text.get_text()[:7] for text in figure.axes[0].get_legend().get_texts()] == [
        "family:",
        "encoder",
    ]


def test_a_narrow_family_is_told_from_a_bad_encoder() -> None:
    """Two latents that the data tie together, under independent Normals that are right."""
    oracle = LinearGaussian(torch.ones(1, 2), torch.tensor([0.1]))
    x = torch.tensor([[0.5], [1.0]])

    def guide(x: Tensor) -> None:
        q = oracle.posterior(x)
        scale = q.precision_matrix.diagonal(dim1=-2, dim2=-1) ** -0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(q.loc, scale).to_event(1))

    verdict = amortization_gap(oracle.model, guide, x, num_steps=50).verdict()
    assert verdict.status is Status.WARN
    assert "AmortizedFlow" in verdict.advice


# Refusals.


def refused(guide: Any) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    amortization_gap(model, guide, torch.zeros(2), num_steps=2)


def test_distributions_without_parameters() -> None:
    def mixture(x: Tensor) -> None:
        parts = dist.Normal(torch.zeros(len(x), 2), 1.0)
        with pyro.plate("data", len(x)):
            weights = dist.Categorical(torch.ones(len(x), 2))
            pyro.sample("z", dist.MixtureSameFamily(weights, parts))

    with explained(ProgramError, "site 'z'", "can be moved", "MixtureSameFamily", "such as Normal"):
        refused(mixture)

    def implicit(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(lambda shape: torch.randn(*shape, len(x))))

    with pytest.raises(DensityError):
        refused(implicit)

    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x))

    with explained(PyroLVMError, "site 'z'", "draws it", "a point mass", "AutoNormal"):
        refused(point)

    def observed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with explained(ProgramError, "guide", "a latent site with parameters", "none", "draws"):
        amortization_gap(observed, lambda x: None, torch.zeros(2), num_steps=2)
    with pytest.raises(PyroLVMError, match="num_steps: expected an integer >= 1, got 0"):
        amortization_gap(point, point, torch.zeros(2), num_steps=0)
