"""Annealed importance sampling against evidences in closed form."""

from collections.abc import Callable
from math import lgamma, log
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro import poutine
from torch import Tensor, nn

from pyro_lvm.data import load
from pyro_lvm.diagnostics import AIS, LogEvidence, log_evidence
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.distributions.implicit import Implicit
from pyro_lvm.errors import DataError, DensityError, PlateError, ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.hmc import Point, transition
from pyro_lvm.models import VAE, FactorAnalysis
from pyro_lvm.objectives import IWAE
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.training import fit

pytestmark = pytest.mark.usefixtures("float64")

SHORT = AIS(num_temperatures=25, num_leapfrog=4)
FROM_GUIDE = AIS(num_temperatures=25, num_leapfrog=4, initial="guide")


def ais(model: Any, *args: Any, guide: Any = None, options: AIS = SHORT, **how: Any) -> LogEvidence:
    return log_evidence(model, guide, *args, method=options, **{"num_samples": 2000, **how})


def check(estimate: LogEvidence, exact: Tensor, largest_error: float = 0.05) -> None:
    """Each datum within 4 standard errors, which are small."""
    assert estimate.value.shape == exact.shape
    assert (estimate.standard_error < largest_error).all(), estimate.standard_error
    z = (estimate.value - exact) / estimate.standard_error
    assert (z.abs() < 4).all(), z


@pytest.fixture
def oracle(float64: torch.dtype) -> LinearGaussian:
    return LinearGaussian(torch.randn(4, 2), torch.tensor([0.8, 1.0, 1.2, 0.9]))


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(12, 2) @ oracle.loading.T + torch.randn(12, 4) * oracle.noise


def implicit_guide(x: Tensor) -> None:
    """Draws of two dims and no density, off the posterior of any model here."""

    def sampler(shape: torch.Size) -> Tensor:
        return 0.3 * x[:, :2] + torch.randn(*shape, len(x), 2).sinh() * 0.7

    with pyro.plate("data", len(x)):
        pyro.sample("z", Implicit(sampler, event_dim=1))


# Exact evidence.


def test_from_the_prior_without_a_guide(oracle: LinearGaussian, x: Tensor) -> None:
    check(ais(oracle.model, x), oracle.log_evidence(x))


@pytest.mark.parametrize("explicit", [True, False])
def test_from_the_guide(oracle: LinearGaussian, x: Tensor, explicit: bool) -> None:
    guide = oracle.exact_guide if explicit else implicit_guide
    check(ais(oracle.model, x, guide=guide, options=FROM_GUIDE), oracle.log_evidence(x))


def test_one_temperature_is_importance_sampling_from_the_prior(
    oracle: LinearGaussian, x: Tensor
) -> None:
    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    chains = Chains(AIS(1), oracle.model, None, (x,), {}, 50)
    pyro.set_rng_seed(1)
    (log_weights,) = chains
    pyro.set_rng_seed(1)
    IWAE(4).log_weights(oracle.model, prior, x)  # what the pilot run draws
    torch.testing.assert_close(log_weights, IWAE(50).log_weights(oracle.model, prior, x))


def test_a_module_and_its_parameters_stay_as_they_are() -> None:
    model = FactorAnalysis(in_features=5, latent_features=2)
    x = model(size=6).detach()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    check(ais(model, x), model.log_evidence(x).detach())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def gamma_poisson(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def beta_bernoulli(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Beta(0.7, 2.0))
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def dirichlet_categorical(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([0.5, 1.0, 2.5])))
        pyro.sample("x", dist.Categorical(p), obs=x)


def two_levels(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(top, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def support_by_another_latent(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Uniform(0.0, 1.0))
        p = pyro.sample("p", dist.Uniform(torch.zeros_like(top), top))
        pyro.sample("x", dist.Bernoulli(p), obs=x)


CONJUGATE: dict[Callable[..., None], Tensor] = {
    gamma_poisson: torch.tensor([0.0, 3.0, 9.0]),
    beta_bernoulli: torch.tensor([0.0, 1.0]),
    dirichlet_categorical: torch.tensor([0, 1, 2]),
    two_levels: torch.tensor([0.0, 3.0]),
    support_by_another_latent: torch.tensor([0.0, 1.0]),
}


def exact_evidence(model: Callable[..., None], x: Tensor) -> Tensor:
    if model is gamma_poisson:  # negative binomial: Gamma(2, 1/2) mixes rates
        return torch.tensor(
            [lgamma(2 + n) - lgamma(n + 1) + 2 * log(1 / 3) + n * log(2 / 3) for n in x.tolist()]
        )
    if model is two_levels:
        return dist.Normal(0.0, 3**0.5).log_prob(x.double())
    chances = {
        beta_bernoulli: [2.0 / 2.7, 0.7 / 2.7],
        dirichlet_categorical: [0.5 / 4, 1.0 / 4, 2.5 / 4],
        support_by_another_latent: [3 / 4, 1 / 4],
    }
    return torch.tensor(chances[model]).log()


@pytest.mark.parametrize("model", CONJUGATE, ids=lambda model: model.__name__)
def test_supports_and_levels(model: Callable[..., None], device: torch.device) -> None:
    x = CONJUGATE[model].to(device)
    x = x.double() if x.is_floating_point() else x
    check(ais(model, x), exact_evidence(model, x))


def test_guide_draws_of_constrained_sites() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal((x / 2 + 0.5).log(), 0.5))

    x = CONJUGATE[gamma_poisson].double()
    check(ais(gamma_poisson, x, guide=guide, options=FROM_GUIDE), exact_evidence(gamma_poisson, x))


def test_global_latent_joins_the_data_in_one_chain() -> None:
    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([1.0, 0.5, -1.5])
    covariance = 2 * torch.eye(3) + torch.ones(3, 3)
    check(ais(model, x), dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x))


@pytest.mark.parametrize("batch_dim", [-1, -2])
def test_inner_plates(batch_dim: int) -> None:
    """Vectors gather latents of an inner plate on either side of the batch plate."""

    def model(x: Tensor) -> None:
        data = pyro.plate("data", x.shape[batch_dim], dim=batch_dim)
        with data:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", x.shape[-3 - batch_dim], dim=-3 - batch_dim):
                z = pyro.sample("z", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(3, 2)
    covariance = 2 * torch.eye(3) + torch.ones(3, 3)
    exact = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x.T)
    check(ais(model, x if batch_dim == -1 else x.T), exact)


def test_summed_out_sites() -> None:
    """Mixture of Normals with one continuous latent: the exact evidence is a mixture too."""
    weights, loc = torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 2.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(weights), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(loc[c], 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([-2.0, 0.0, 1.0])
    exact = (weights.log() + dist.Normal(loc, 1.25**0.5).log_prob(x[:, None])).logsumexp(-1)
    check(ais(model, x), exact, largest_error=0.1)


# Masks and scales.


def test_missing_data() -> None:
    x = torch.tensor([[0.5, torch.nan], [torch.nan, torch.nan], [1.0, -1.0]])
    seen = ~x.isnan()

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            likelihood = dist.Normal(z[..., None], 1.0).expand([*z.shape, 2]).mask(seen)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    estimate = ais(model, x, seen)
    both = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x[2])
    one = dist.Normal(0.0, 2**0.5).log_prob(x[0, 0])
    error = (estimate.value[::2] - torch.stack([one, both])) / estimate.standard_error[::2]
    assert (error.abs() < 4).all()
    assert (estimate.standard_error < 0.05).all()
    assert estimate.value[1].abs() < 1e-12, "nothing was seen"


@pytest.mark.parametrize("options", [SHORT, FROM_GUIDE])
def test_masked_latents_do_not_count(options: AIS) -> None:
    """The second step of the second datum does not exist."""
    exists = torch.tensor([[True, True], [True, False]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", 2, dim=-2):
            pyro.factor("one weight a row", torch.zeros(2, 1))
            with pyro.plate("steps", 2), poutine.mask(mask=exists):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 2, dim=-2), pyro.plate("steps", 2):
            pyro.sample("z", dist.Normal(x / 2, 0.6))

    x = torch.tensor([[0.3, -2.0], [1.0, 5.0]])
    exact = (dist.Normal(0.0, 2**0.5).log_prob(x) * exists).sum(-1)
    check(ais(model, x, guide=guide, options=options), exact)


def test_scale_is_kept_out_of_the_weights(oracle: LinearGaussian, x: Tensor) -> None:
    rows = torch.tensor([1, 4, 7])
    estimate = ais(oracle.model, x, size=12, subsample=rows)
    check(estimate, oracle.log_evidence(x)[rows])
    torch.testing.assert_close(estimate.total(), 4 * estimate.value.sum())


def test_one_minibatch_in_all_runs(oracle: LinearGaussian) -> None:
    x = torch.arange(20.0)[:, None] * torch.ones(4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", 20, subsample_size=4) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample(
                "x", dist.Normal(z @ oracle.loading.T, oracle.noise).to_event(1), obs=x[index]
            )

    estimate = ais(model, x, num_samples=64, options=AIS(100, 5))
    nearest = (estimate.value[:, None] - oracle.log_evidence(x)).abs().min(1)
    assert (nearest.values < 4 * estimate.standard_error).all()
    assert len(nearest.indices.unique()) == 4


def test_factors_on_latents_are_scaled_as_written() -> None:
    """A prior to the power 2 is a density of its own; chains still start at the prior drawn."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=2.0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.0, 1.5])
    power = dist.Normal(0.0, 1.0).log_prob(torch.zeros(())) + 0.5 * log(0.5)
    check(ais(model, x), power + dist.Normal(0.0, 1.5**0.5).log_prob(x))


# The claim: unbiased weights, a lower bound.


def bimodal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.square(), 0.2), obs=x)


def bimodal_guide(x: Tensor) -> None:
    """Sees one mode only, and a little of the other."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5, 0.7))


@pytest.mark.parametrize("initial", ["prior", "guide"])
def test_weights_are_unbiased_and_their_log_is_a_lower_bound(initial: str) -> None:
    """Few temperatures and short moves: noisy weights, whose mean is p(x) all the same."""
    x = torch.tensor([1.5])
    grid = torch.linspace(-6, 6, 20001)
    joint = dist.Normal(0.0, 1.0).log_prob(grid) + dist.Normal(grid.square(), 0.2).log_prob(x)
    exact = torch.trapezoid(joint.exp(), grid).log()
    chains = Chains(AIS(4, 2, initial), bimodal, bimodal_guide, (x,), {}, 40_000)
    log_ratio = torch.cat(list(chains)) - exact
    ratio = log_ratio.exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(ratio.mean() - 1) < 4 * error
    assert log_ratio.mean() < -0.3, "noisy enough for a bias to show"


def test_transitions_leave_the_target_invariant() -> None:
    """Draws of a tempered Normal stay draws of it, whatever the step size."""

    def path(z: Tensor) -> Point:
        start, joint = -z.square().sum(-1) / 2, -(z - 3).square().sum(-1) / 0.5
        return Point(z, start, joint, -z, -4 * (z - 3))

    precision = 0.5 * 1 + 0.5 * 4
    mean = 0.5 * 4 * 3 / precision
    point = path(mean + torch.randn(40_000, 2) / precision**0.5)
    for _ in range(3):
        point, accepted = transition(path, point, 0.5, torch.tensor([0.9, 0.0]), 3)
    assert 0.3 < accepted.mean() < 0.95, "the test of acceptance matters"
    z = (point.position - mean) * precision**0.5
    assert (z.mean(0).abs() < 4 / 200).all()
    assert ((z.var(0) - 1).abs() < 4 * 2**0.5 / 200).all()


def test_moves_into_no_density_are_rejected() -> None:
    def path(z: Tensor) -> Point:
        log_density = torch.where(z < 0, torch.nan, -z).sum(-1)
        return Point(z, log_density, log_density, -torch.ones_like(z), -torch.ones_like(z))

    point = path(torch.ones(1000, 1))
    for _ in range(20):
        point, accepted = transition(path, point, 0.5, torch.tensor(1.0), 3)
        assert accepted.isfinite().all()
    assert (point.position >= 0).all()
    assert point.log_joint.isfinite().all()


def test_pilot_reaches_the_wanted_acceptance(
    oracle: LinearGaussian, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def spy(*args: Any) -> tuple[Point, Tensor]:
        result = transition(*args)
        rates.append(result[1].mean())
        return result

    monkeypatch.setattr("pyro_lvm.diagnostics.annealed_chains.transition", spy)
    log_evidence(oracle.model, None, x, num_samples=20, method=AIS(100, 5))
    assert 0.5 < torch.stack(rates[-99:]).mean() < 0.8


# Against importance sampling, and what users see.


def test_agrees_with_importance_sampling_on_digits(device: torch.device) -> None:
    torch.set_default_dtype(torch.float32)
    data = load("digits")
    train, test = ((part.flatten(1) > 0.5).float() for part in (data.train, data.test))
    model = VAE(64, 3, hidden=(32,))
    guide = AmortizedNormal(in_features=64, latent_features=3, hidden=(32,))
    fit(model, guide, train, IWAE(5), max_steps=150, progress=False, diagnostic_particles=0)
    x = test[:20].to(device)
    weighted = log_evidence(model, guide, x, num_samples=5000)
    annealed = ais(model, x, num_samples=32, options=AIS(100, 5))
    assert annealed.value.dtype == torch.float32
    error = (weighted.standard_error.square() + annealed.standard_error.square()).sqrt()
    assert (((annealed.value - weighted.value) / error).abs() < 4).all()
    assert annealed.standard_error.square().sum().sqrt() / 20 < 0.05, "of the mean over digits"


def test_defaults_and_chunks(
    oracle: LinearGaussian, x: Tensor, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(AIS, "betas", lambda self: [0.0, 0.5, 1.0])
    largest = 0

    def model(x: Tensor) -> None:
        nonlocal largest
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            largest = max(largest, len(z) if z.dim() == 3 else 1)
            mean = z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x)

    estimate = log_evidence(model, None, x, method="ais", chunk_size=5)
    assert estimate.num_samples == 32
    assert largest == 5
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.abs().max() < 5
    assert capfd.readouterr().err == "", "no progress bar without a terminal"


def test_default_chunks_bound_the_memory(oracle: LinearGaussian, x: Tensor) -> None:
    sizes = [
        Chains(AIS(1), oracle.model, None, (x.repeat(n, 1),), {}, 1).chunk_size for n in (1, 100)
    ]
    assert sizes[0] > 50 * sizes[1] > 0


# Refusals.


def test_arguments() -> None:
    with explained(PyroLVMError, "num_temperatures", "an integer >= 1", "0", "num_temperatures"):
        AIS(num_temperatures=0)
    with explained(PyroLVMError, "num_leapfrog", "an integer >= 1", "1.5", "num_leapfrog"):
        AIS(num_leapfrog=1.5)  # type: ignore[arg-type]
    with explained(PyroLVMError, "initial", "'prior' or 'guide'", "'posterior'", "initial='prior'"):
        AIS(initial="posterior")
    with explained(PyroLVMError, "guide", "one for method='iwae'", "None", "method='ais'"):
        log_evidence(two_levels, None, torch.zeros(2))
    with explained(PyroLVMError, "guide", "a guide", "None", "initial='prior'"):
        log_evidence(two_levels, None, torch.zeros(2), method=FROM_GUIDE)
    for name in ("num_samples", "chunk_size"):
        with explained(PyroLVMError, name, "an integer >= 1", "0", name):
            log_evidence(two_levels, None, torch.zeros(2), method="ais", **{name: 0})


def test_guides_that_start_nowhere(x: Tensor) -> None:
    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Delta(torch.ones(len(x))))

    counts = torch.tensor([1.0, 2.0])
    with explained(PyroLVMError, "start", "draws that differ", "a point mass", "initial='prior'"):
        ais(gamma_poisson, counts, guide=point, options=FROM_GUIDE)
    with pytest.raises(ProgramError, match="rate"):
        ais(gamma_poisson, x, guide=implicit_guide, options=FROM_GUIDE)


def test_latents_that_cannot_move(x: Tensor) -> None:
    def only_data(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)

    with explained(ProgramError, "model", "a continuous latent", "none", "method='iwae'"):
        ais(only_data, x)

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with explained(ProgramError, "site 'c'", "continuous", "Bernoulli", "'enumerate': 'parallel'"):
        ais(discrete, x[:, 0])

    def implicit(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Implicit(lambda shape: torch.randn(*shape, len(x))))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with explained(DensityError, "site 'z'", "a prior with a density", "Implicit", "objective="):
        ais(implicit, x[:, 0])


def test_a_minibatch_beside_a_global_latent() -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("x", dist.Normal(w, 1.0), obs=torch.zeros(2))

    with explained(PlateError, "plate 'data'", "inside it", "a latent outside it", "full data"):
        ais(model)


def test_densities_that_change() -> None:
    dropout = nn.Dropout(0.5)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dropout(z).sum(-1), 1.0), obs=x)

    with explained(ProgramError, "model", "one density", "another one", "model.eval()"):
        ais(model, torch.zeros(4))


def test_data_that_are_not_numbers() -> None:
    with pytest.raises(DataError, match="NaN"):
        ais(two_levels, torch.tensor([0.0, torch.nan]))
