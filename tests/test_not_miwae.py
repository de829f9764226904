"""Missing not at random, and MIWAE: bounds, gradients and imputations against quadrature."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from moved import moved
from torch import Tensor, nn

from pyro_lvm.diagnostics import impute, log_evidence
from pyro_lvm.distributions import BernoulliLikelihood, GaussianLikelihood, MixedLikelihood
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import Incomplete, NotAtRandom, SelfMasking
from pyro_lvm.models import VAE, VAEAC, FactorAnalysis
from pyro_lvm.nn import MLP, ZeroImputing
from pyro_lvm.objectives import ELBO, IWAE, TVO
from pyro_lvm.testing import check_guide

pytestmark = pytest.mark.usefixtures("float64")

NAN = torch.nan
X = torch.tensor([[0.5, 1.0], [0.7, NAN], [NAN, -0.4], [NAN, NAN]], dtype=torch.float64)
MANY = X.repeat(2000, 1)
GRID = torch.linspace(-12, 12, 801, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])


class Given(nn.Module):
    """A mechanism whose two columns depend on both."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 - x @ x.new_tensor([[2.0, -0.3], [0.4, 1.0]])


MECHANISMS: dict[str, Callable[[], nn.Module]] = {
    "self": lambda: moved(SelfMasking(2), 1.0),
    "self, high": lambda: moved(SelfMasking(2, missing="high"), 1.0),
    "linear": lambda: moved(nn.Linear(2, 2), 1.0),
    "network": lambda: moved(MLP(2, 2, (8,)), 1.0),
    "given": Given,
}
every_mechanism = pytest.mark.parametrize("make", MECHANISMS.values(), ids=MECHANISMS)


def factors() -> FactorAnalysis:
    model = FactorAnalysis(2, 1)
    with torch.no_grad():
        model.loading.copy_(torch.tensor([[1.0], [-0.8]]))
        model.mean.copy_(torch.tensor([0.2, -0.1]))
    model.noise_scale = torch.tensor([0.5, 0.7])
    return model


def wide_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.2).to_event(1))


def by_quadrature(model: FactorAnalysis, mechanism: nn.Module) -> tuple[Tensor, Tensor]:
    """log p(observed entries, mask) and the means of both entries given them, of ``X``."""
    whole = torch.cartesian_prod(GRID, GRID)  # (points, 2)
    covariance = model.loading @ model.loading.T + torch.diag(model.noise_scale**2)
    evidence, means = [], []
    for row in X:
        missing = row.isnan()
        points = whole if missing.all() else torch.where(missing, GRID[:, None], row)
        points = points if missing.any() else row[None]
        log_p = dist.MultivariateNormal(model.mean, covariance).log_prob(points)
        mask = dist.Bernoulli(logits=mechanism(points)).log_prob((~missing).double())
        log_p = log_p + mask.sum(-1) + int(missing.sum()) * torch.tensor(CELL).log()
        evidence.append(torch.logsumexp(log_p, 0))
        means.append(torch.softmax(log_p, 0) @ points)
    return torch.stack(evidence).detach(), torch.stack(means).detach()


@every_mechanism
@torch.no_grad()
def test_evidence_of_entries_and_their_mask(make: Callable[[], nn.Module]) -> None:
    model, mechanism = factors(), make()
    exact, _ = by_quadrature(model, mechanism)
    evidence = log_evidence(NotAtRandom(model, mechanism), wide_guide, X, num_samples=50_000)
    assert ((evidence.value - exact).abs() < 4 * evidence.standard_error).all()
    assert (evidence.standard_error < 0.02).all()


@every_mechanism
@pytest.mark.parametrize("method", ["sir", "mean"])
@torch.no_grad()
def test_imputations_know_why_entries_are_missing(
    make: Callable[[], nn.Module], method: str
) -> None:
    model, mechanism, count = factors(), make(), 20_000
    _, exact = by_quadrature(model, mechanism)
    imputed = impute(
        NotAtRandom(model, mechanism),
        wide_guide,
        X,
        method=method,
        num_samples=count,
        num_particles=count,
        chunk_size=9000,
    )
    size = imputed.effective_sample_size.unsqueeze(1)
    error = 1.2 * (1 / size + 1 / count).sqrt()  # no entry has a wider distribution
    assert (
        (imputed.values.mean(0) - exact).abs()[X.isnan()] < (4 * error).expand(4, 2)[X.isnan()]
    ).all()
    assert (error < 0.05).all()
    assert torch.equal(imputed.observed, ~X.isnan())


@torch.no_grad()
def test_a_mechanism_that_reads_nothing_changes_nothing() -> None:
    model, mechanism = factors(), SelfMasking(2)
    free = log_evidence(NotAtRandom(model, mechanism), wide_guide, X, num_samples=20_000)
    ignored = log_evidence(Incomplete(model), wide_guide, X, num_samples=20_000)
    error = (free.standard_error**2 + ignored.standard_error**2).sqrt()
    difference = free.value - ignored.value - 2 * torch.tensor(0.5).log()
    assert (difference.abs() < 4 * error + 1e-12).all()


@pytest.mark.parametrize("objective", [ELBO(40), IWAE(40), IWAE(40, gradient="dreg")], ids=repr)
def test_gradients_are_those_of_the_bound(objective: Any) -> None:
    """Of the mechanism and the model, by finite differences of the mean bound."""
    model = NotAtRandom(factors(), moved(SelfMasking(2), 1.0))
    parameter, eps = model.mechanism.raw_slope, 0.05
    count = len(MANY) // len(X)

    def bounds(shift: float) -> Tensor:  # (count,), by both entries' slopes
        with torch.no_grad():
            parameter.add_(shift)
            pyro.set_rng_seed(1)
            found: Tensor = objective.bound(model, wide_guide, MANY)
            parameter.sub_(shift)
        return found.reshape(count, len(X)).sum(1)

    slope = (bounds(eps) - bounds(-eps)) / (2 * eps)
    pyro.set_rng_seed(2)
    shifts = torch.zeros(count, 1, 1, requires_grad=True)  # a slope for each repetition
    model.mechanism = _Shifted(model.mechanism, shifts, count)
    loss = objective.differentiable_loss(model, wide_guide, MANY)
    gradient = -torch.autograd.grad(loss, shifts)[0].flatten()
    error = ((slope.var() + gradient.var()) / count).sqrt()
    assert (slope.mean() - gradient.mean()).abs() < 4 * error + 1e-3
    assert error < 0.1 * slope.mean().abs()


class _Shifted(nn.Module):
    def __init__(self, mechanism: nn.Module, shifts: Tensor, count: int) -> None:
        super().__init__()
        self.mechanism, self.shifts, self.count = mechanism, shifts, count

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shifts * x.unflatten(-2, (self.count, -1))
        return self.mechanism(x) + shift.flatten(-3, -2)


def test_entries_without_path_train_by_scores() -> None:
    likelihood = MixedLikelihood([GaussianLikelihood(1), BernoulliLikelihood(1)])
    model = NotAtRandom(VAE(2, 1, (4,), likelihood), SelfMasking(2))
    encoder = ZeroImputing(MLP(4, None, (5,)))
    guide = AmortizedNormal(encoder, encoder_features=5, latent_features=1)
    x = torch.tensor([[0.5, 1.0], [0.7, NAN], [NAN, 0.0], [NAN, NAN]])
    with pytest.raises(ProgramError, match="x_unobserved"):
        IWAE(4).differentiable_loss(model, guide, x)
    parameters = [*model.parameters(), *guide.parameters()]
    for objective in (IWAE(4, gradient="vimco"), TVO(4)):
        loss = objective.differentiable_loss(model, guide, x)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in gradients)
    imputed = impute(model, guide, x, method="mean")
    assert set(imputed.values[0, :, 1].tolist()) == {0.0, 1.0}


def test_the_model_alone_still_draws_data() -> None:
    assert NotAtRandom(factors(), SelfMasking(2))(size=5).shape == (5, 2)
    check_guide(AmortizedNormal(in_features=2, latent_features=1), X.nan_to_num(0.0), factors())


@pytest.mark.parametrize("program", ["not at random", "conditional"])
def test_chains_of_completed_data_are_refused(program: str) -> None:
    made: Any = NotAtRandom(factors(), SelfMasking(2)), wide_guide
    if program == "conditional":
        conditional = VAEAC(2, 1, width=4, depth=1)
        made = conditional, conditional.prior_guide
    parts = "site 'x' under method='mh'", "the same for completed data", "reads which entries"
    with explained(ProgramError, *parts, "method='sir'"):
        impute(*made, X, method="mh")


def test_a_mechanism_of_another_shape() -> None:
    expected = "log-odds of shape (4, 2), one for each entry"
    with explained(ProgramError, "mechanism", expected, "(4, 3)", "as many outputs as columns"):
        NotAtRandom(factors(), nn.Linear(2, 3))(X)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: SelfMasking(0), "features: expected an integer >= 1, got 0"),
    (lambda: SelfMasking(2, missing="large"), "missing: expected one of .* got 'large'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


def test_known_signs() -> None:
    assert (moved(SelfMasking(9, missing="high"), 1.0).slope < 0).all()
    assert (moved(SelfMasking(9, missing="low"), 1.0).slope > 0).all()


# MIWAE is Incomplete under IWAE.


@torch.no_grad()
def test_miwae_rises_to_the_evidence_of_what_is_observed() -> None:
    model = factors()
    covariance = model.loading @ model.loading.T + torch.diag(model.noise_scale**2)
    exact = torch.zeros(4)
    for i, row in enumerate(X):
        o = ~row.isnan()
        if o.any():
            exact[i] = dist.MultivariateNormal(model.mean[o], covariance[o][:, o]).log_prob(row[o])
    gaps = []
    for num_particles in (1, 5, 50):
        bounds = IWAE(num_particles).bound(Incomplete(model), wide_guide, MANY).reshape(-1, 4)
        gap, error = exact - bounds.mean(0), bounds.std(0) / len(bounds) ** 0.5
        assert (gap > -4 * error).all()
        gaps.append(gap)
    assert (gaps[0] > gaps[1]).all()
    assert (gaps[1] > gaps[2]).all()
    assert (gaps[2] < 0.05).all()
