"""Bounds against exact answers on a linear-Gaussian factor model, in float64.

Stochastic comparisons use averages of independent replicates and ask for 4 standard errors
(one false alarm in about 16,000 for each), with the standard error itself small enough to
see the fault the test is about.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_models import EXPLICIT
from pyro import poutine
from standard_errors import mean_and_error
from torch import Tensor

from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, Renyi
from pyro_lvm.oracles import LinearGaussian

pytestmark = pytest.mark.usefixtures("float64")

N, FEATURES, LATENTS = 40, 5, 2
CLASSES = EXPLICIT


@pytest.fixture
def oracle() -> LinearGaussian:
    return LinearGaussian(torch.randn(FEATURES, LATENTS), torch.rand(FEATURES) + 0.5)


@pytest.fixture
def x(oracle) -> Tensor:
    z = torch.randn(N, LATENTS)
    return z @ oracle.loading.T + oracle.noise * torch.randn(N, FEATURES)


def wide(oracle: LinearGaussian, x: Tensor) -> dist.MultivariateNormal:
    """A guide near the posterior and wider than it: every weight has finite variance."""
    exact = oracle.posterior(x)
    return dist.MultivariateNormal(exact.loc + 0.2, 1.5 * exact.covariance_matrix)


def wide_guide(oracle: LinearGaussian):
    def guide(x: Tensor, size: int | None = None, subsample: Tensor | None = None) -> None:
        with pyro.plate("data", size or len(x), subsample=subsample) as index:
            pyro.sample("z", wide(oracle, x if subsample is None else x[index]))

    return guide


def close(draws: Tensor, exact: Tensor, errors: float = 4.0) -> None:
    mean, error = mean_and_error(draws)
    assert ((mean - exact).abs() <= errors * error).all(), (mean, exact, error)


def test_elbo_is_its_closed_form(oracle, x) -> None:
    exact = oracle.elbo(x, wide(oracle, x))
    draws = torch.stack([ELBO(100).bound(oracle.model, wide_guide(oracle), x) for _ in range(100)])
    assert draws.shape == (100, N)
    total, error = mean_and_error(draws.sum(-1))
    assert abs(total - exact.sum()) < 3 * error
    assert error < 0.01 * (oracle.log_evidence(x) - exact).sum()
    close(draws, exact)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("num_particles", [1, 5, 50])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exact_posterior_gives_log_evidence(cls, num_particles, seed, oracle, x) -> None:
    pyro.set_rng_seed(seed)
    bound = cls(max(num_particles, cls.min_particles)).bound(oracle.model, oracle.exact_guide, x)
    assert bound.shape == (N,)
    torch.testing.assert_close(bound, oracle.log_evidence(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_particles", [1, 5, 50])
def test_iwae_agrees_with_an_independent_reference(num_particles, oracle, x) -> None:
    """The reference draws by torch alone and evaluates p(x, z) / q(z | x) by hand."""
    q = wide(oracle, x)
    identity = torch.eye(LATENTS)
    prior = torch.distributions.MultivariateNormal(torch.zeros(LATENTS), identity)
    z = q.sample(torch.Size((400, num_particles)))
    residual = (x - z @ oracle.loading.T) / oracle.noise
    log_lik = (-0.5 * residual**2 - oracle.noise.log() - 0.9189385332046727).sum(-1)
    log_w = log_lik + prior.log_prob(z) - q.log_prob(z)
    reference = torch.logsumexp(log_w, 1).sub(torch.tensor(float(num_particles)).log()).sum(-1)
    objective, guide = IWAE(num_particles), wide_guide(oracle)
    draws = torch.stack([objective.bound(oracle.model, guide, x).sum() for _ in range(400)])
    (ours, e1), (theirs, e2) = mean_and_error(draws), mean_and_error(reference)
    assert abs(ours - theirs) < 4 * (e1**2 + e2**2) ** 0.5
    assert ours < oracle.log_evidence(x).sum() + 4 * e1


def test_bounds_rise_with_particles_and_fall_with_alpha(oracle, x) -> None:
    guide = wide_guide(oracle)

    def mean(objective: Objective) -> Tensor:
        draws = [objective.bound(oracle.model, guide, x).sum() for _ in range(200)]
        return torch.stack(draws).mean()

    by_particles = [mean(IWAE(k)) for k in (1, 5, 50)]
    assert by_particles == sorted(by_particles)
    by_order = [mean(ELBO(20)), *(mean(Renyi(20, alpha=a)) for a in (0.5, 0.0, -1.0))]
    assert by_order == sorted(by_order)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("random", [True, False], ids=["subsample_size", "subsample"])
def test_ten_percent_subsample_has_the_full_mean(cls, random, oracle, x) -> None:
    """The scaled bound of minibatches averages to the full one, below log p(x) if from below."""
    objective = cls(10)

    def plated(rows, plate: dict):
        def run() -> None:
            with pyro.plate("data", N, **plate) as index:
                rows(x[index])

        return run

    def bounds(count: int, size: int) -> Tensor:
        values = []
        for _ in range(count):
            index = torch.randperm(N)[:size]
            plate = {"subsample_size": size} if random else {"subsample": index}
            programs = [plated(rows(oracle), plate) for rows in (rows_model, rows_guide)]
            values.append(summed_bound(objective, *programs))
        return torch.tensor(values)

    (mean, e1), (whole, e2) = mean_and_error(bounds(300, N // 10)), mean_and_error(bounds(60, N))
    assert abs(mean - whole) < 4 * (e1**2 + e2**2) ** 0.5
    assert mean < oracle.log_evidence(x).sum() + 4 * e1 or not objective.is_bound
    assert e1 < 0.02 * abs(whole)


def summed_bound(objective: Objective, *programs) -> float:
    """The scaled bound of all data, which ``loss`` has with its sign turned if from below."""
    return objective.loss(*programs) * (1.0 if objective.is_upper else -1.0)


def rows_model(oracle: LinearGaussian):
    def rows(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ oracle.loading.T, oracle.noise).to_event(1), obs=x)

    return rows


def rows_guide(oracle: LinearGaussian):
    def rows(x: Tensor) -> None:
        pyro.sample("z", wide(oracle, x))

    return rows


def nested(oracle: LinearGaussian, x: Tensor, rows, outer: dict, inner: dict):
    """The same rows in two nested plates, 8 groups of 5."""

    def run() -> None:
        with (
            pyro.plate("group", 8, dim=-2, **outer) as i,
            pyro.plate("row", 5, dim=-1, **inner) as j,
        ):
            rows(x.reshape(8, 5, FEATURES)[i[:, None], j])

    return run


def test_nested_plates_give_one_bound_a_datum(oracle, x) -> None:
    programs = [nested(oracle, x, r(oracle), {}, {}) for r in (rows_model, rows_guide)]
    objective = IWAE(200)
    bound = torch.stack([objective.bound(*programs) for _ in range(50)])
    flat = torch.stack([objective.bound(oracle.model, wide_guide(oracle), x) for _ in range(50)])
    assert bound.shape == (50, 8, 5)
    (ours, e1), (theirs, e2) = mean_and_error(bound.reshape(50, N)), mean_and_error(flat)
    assert ((ours - theirs).abs() < 4.5 * (e1**2 + e2**2) ** 0.5).all()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_nested_subsampled_plates_have_the_full_mean(cls, oracle, x) -> None:
    """Both plates of two nested ones subsampled: N/B of each multiplies the bound."""
    objective = cls(5)

    def losses(outer: dict, inner: dict, count: int) -> Tensor:
        programs = [nested(oracle, x, r(oracle), outer, inner) for r in (rows_model, rows_guide)]
        return torch.tensor([summed_bound(objective, *programs) for _ in range(count)])

    small, full = losses({"subsample_size": 4}, {"subsample_size": 2}, 300), losses({}, {}, 60)
    (mean, e1), (whole, e2) = mean_and_error(small), mean_and_error(full)
    assert abs(mean - whole) < 4 * (e1**2 + e2**2) ** 0.5
    assert mean < oracle.log_evidence(x).sum() + 4 * e1 or not objective.is_bound


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("how", ["obs_mask", "poutine.mask"])
def test_masked_features_are_marginalised(cls, how, oracle, x) -> None:
    """Hidden entries are NaN. The exact posterior given the rest gives the evidence of it."""
    observed = torch.rand(N, FEATURES) < 0.6
    holes = x.masked_fill(~observed, float("nan"))

    def model(x: Tensor) -> None:
        with pyro.plate("data", N, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, LATENTS), 1.0).to_event(1))
            loc = (z.unsqueeze(-2) @ oracle.loading.T).reshape(*z.shape[:-2], FEATURES)
            with pyro.plate("feature", FEATURES, dim=-1):
                fn = dist.Normal(loc, oracle.noise)
                if how == "obs_mask":
                    pyro.sample("x", fn, obs=x, obs_mask=observed)
                else:
                    with poutine.mask(mask=observed):
                        pyro.sample("x", fn, obs=x)

    precise = observed / oracle.noise**2  # (N, features)
    precision = torch.eye(LATENTS) + torch.einsum(
        "nf,fa,fb->nab", precise, oracle.loading, oracle.loading
    )
    covariance = torch.linalg.inv(precision)
    pull = torch.einsum("nf,fa->na", precise * x, oracle.loading)
    loc = (covariance @ pull[..., None])[..., 0]

    def guide(x: Tensor) -> None:
        with pyro.plate("data", N, dim=-2):
            pyro.sample("z", dist.MultivariateNormal(loc[:, None], covariance[:, None]))

    full = oracle.loading @ oracle.loading.T + torch.diag(oracle.noise**2)
    exact = torch.stack(
        [
            dist.MultivariateNormal(torch.zeros(int(o.sum())), full[o][:, o]).log_prob(row[o])
            if o.any()
            else torch.zeros(())
            for row, o in zip(x, observed, strict=True)
        ]
    )
    bound = cls(3).bound(model, guide, holes)
    torch.testing.assert_close(bound, exact, atol=1e-6, rtol=0)


def test_row_with_nothing_observed_has_minus_the_kl(oracle, x) -> None:
    """Its evidence is 0: the bound is 0 where the guide is the prior, else -KL(q || p)."""
    hidden = torch.full_like(x, float("nan"))

    def model(x: Tensor) -> None:
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            with poutine.mask(mask=torch.zeros(N, dtype=torch.bool)):
                loc = z @ oracle.loading.T
                pyro.sample("x", dist.Normal(loc, oracle.noise).to_event(1), obs=x)

    def prior(x: Tensor) -> None:
        with pyro.plate("data", N):
            pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))

    torch.testing.assert_close(IWAE(5).bound(model, prior, hidden), torch.zeros(N))


def test_global_latent_joins_its_data_into_one_joint_weight() -> None:
    """mu ~ N(0,1), z_n ~ N(mu,1), x_n ~ N(z_n,1): the exact guide gives the joint evidence."""
    x = torch.tensor([0.5, -1.0, 2.0])
    n = len(x)
    joint = dist.MultivariateNormal(torch.zeros(n), 2 * torch.eye(n) + torch.ones(n, n))

    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        precision = 1 + n / 2
        mu = pyro.sample("mu", dist.Normal(x.sum() / 2 / precision, precision**-0.5))
        with pyro.plate("data", n):
            pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))

    for cls in CLASSES:
        bound = cls(7).bound(model, guide, x)
        assert bound.shape == ()
        torch.testing.assert_close(bound, joint.log_prob(x), atol=1e-6, rtol=0)
    assert IWAE(7).log_weights(model, guide, x).shape == (7,)


def test_crossed_plates_join_into_one_weight() -> None:
    """a_i + b_j + noise: rows and columns share latents, so no plate holds independent data."""
    x = torch.randn(3, 4)
    eye3, eye4 = torch.eye(3), torch.eye(4)
    rows, columns = torch.kron(eye3, torch.ones(4, 1)), torch.kron(torch.ones(3, 1), eye4)
    design = torch.cat([rows, columns], 1)
    exact = dist.MultivariateNormal(torch.zeros(12), design @ design.T + torch.eye(12))
    covariance = torch.linalg.inv(torch.eye(7) + design.T @ design)
    loc = covariance @ design.T @ x.reshape(-1)

    def model() -> None:
        with pyro.plate("i", 3, dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(1), 1.0))
        with pyro.plate("j", 4, dim=-1):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("i2", 3, dim=-2), pyro.plate("j2", 4, dim=-1):
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def guide() -> None:
        both = pyro.sample(
            "both", dist.MultivariateNormal(loc, covariance), infer={"is_auxiliary": True}
        )
        with pyro.plate("i", 3, dim=-2):
            a = both[..., :3].reshape(*both.shape[:-3], -1, 1) if both.dim() > 1 else both[:3, None]
            pyro.sample("a", dist.Delta(a))
        with pyro.plate("j", 4, dim=-1):
            b = both[..., 3:].reshape(*both.shape[:-3], 1, -1) if both.dim() > 1 else both[3:]
            pyro.sample("b", dist.Delta(b))

    bound = IWAE(3).bound(model, guide)
    torch.testing.assert_close(bound, exact.log_prob(x.reshape(-1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_follow_the_dtype_of_the_data(dtype) -> None:
    torch.set_default_dtype(torch.float32)
    oracle = LinearGaussian(torch.ones(3, 1, dtype=dtype), torch.ones(3, dtype=dtype))
    weights = IWAE(4).log_weights(oracle.model, oracle.exact_guide, torch.zeros(6, 3, dtype=dtype))
    assert weights.dtype == dtype
    assert weights.shape == (4, 6)


def test_low_precision_log_probs_are_summed_in_float32() -> None:
    x = torch.zeros(4, dtype=torch.bfloat16)

    def model() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), torch.ones_like(x)))
            pyro.sample("x", dist.Normal(z, torch.ones_like(x)), obs=x)

    def guide() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), torch.ones_like(x)))

    assert IWAE(3).log_weights(model, guide).dtype == torch.float32


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_guide_that_imputes_is_charged_for_what_is_hidden_only(gradient) -> None:
    """x ~ N(0,1) with holes imputed by the guide from the same law: the evidence, exactly."""
    x = torch.tensor([0.3, float("nan"), -1.2])
    observed = ~x.isnan()
    scale = torch.ones((), requires_grad=True)

    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0 * z, 1.0), obs=x, obs_mask=observed)

    def guide() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x_unobserved", dist.Normal(0.0 * z, 1.0))

    objective = IWAE(4, gradient)
    exact = dist.Normal(0.0, 1.0).log_prob(x.nan_to_num()) * observed
    torch.testing.assert_close(objective.bound(model, guide), exact)
    assert objective.differentiable_loss(model, guide).isfinite()


def test_finished_objectives_are_not_extended() -> None:
    with pytest.raises(TypeError, match="finished objective IWAE"):
        type("Tighter", (IWAE,), {})
    with pytest.raises(TypeError, match="its own loss"):
        type("Lossy", (Objective,), {"loss": lambda self: 0.0})
