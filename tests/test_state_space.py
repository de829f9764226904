"""Linear-Gaussian state-space models: against the dense joint Gaussian, in float64."""

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_models import check_exact_guide, check_gradients, check_scale
from explained import explained
from torch import Tensor

from pyro_lvm.distributions import LinearGaussianChain
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.models import LinearGaussianSSM
from pyro_lvm.objectives import IWAE
from pyro_lvm.random_state import kept_random_state

pytestmark = pytest.mark.usefixtures("float64")

FEATURES, LATENTS, STEPS = 3, 2, 5


@pytest.fixture(autouse=True)
def local_parameters() -> Iterator[None]:
    """Two models of one test share nothing."""
    with pyro.settings.context(module_local_params=True):
        yield


def drawn(num_steps: int = STEPS, **options) -> LinearGaussianSSM:
    model = LinearGaussianSSM(FEATURES, LATENTS, num_steps=num_steps, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def data(model: LinearGaussianSSM) -> Tensor:
    return model(size=6).detach()


def chain(*batch: int, reverse: bool = False) -> LinearGaussianChain:
    tril = torch.randn(STEPS, LATENTS, LATENTS).tril(-1) + torch.diag_embed(
        torch.rand(STEPS, LATENTS) + 0.5
    )
    offset = torch.randn(*batch, STEPS, LATENTS)
    transition = torch.randn(STEPS - 1, LATENTS, LATENTS)
    return LinearGaussianChain(offset, transition, tril, reverse=reverse)


def dense(prior: LinearGaussianChain) -> dist.MultivariateNormal:
    """The same distribution over ``(T * L,)``: (I - A) z = b + S noise, one linear system."""
    moves = torch.nn.functional.pad(torch.block_diag(*prior.transition), (0, LATENTS, LATENTS, 0))
    solve = torch.linalg.inv(torch.eye(len(moves)) - moves)
    root = solve @ torch.block_diag(*prior.scale_tril)
    return dist.MultivariateNormal(prior.offset.flatten(-2) @ solve.T, root @ root.T)


def seen(model: LinearGaussianSSM, steps: int = STEPS) -> tuple[Tensor, Tensor, Tensor]:
    """x = H z + d + noise of all steps together: H, d and the noise's variance."""
    loading = torch.block_diag(*[model.loading] * steps)
    return loading, model.mean.repeat(steps), model.noise_scale.square().repeat(steps)


def dense_evidence(model: LinearGaussianSSM, x: Tensor) -> Tensor:
    prior = dense(model.prior(STEPS))
    loading, mean, noise = seen(model)
    covariance = loading @ prior.covariance_matrix @ loading.T + noise.diag()
    return dist.MultivariateNormal(loading @ prior.loc + mean, covariance).log_prob(x.flatten(1))


def dense_posterior(model: LinearGaussianSSM, x: Tensor) -> dist.MultivariateNormal:
    """Of all states, given the first steps that ``x`` has."""
    prior = dense(model.prior(STEPS))
    loading, mean, noise = seen(model, x.shape[1])
    loading = torch.nn.functional.pad(loading, (0, STEPS * LATENTS - loading.shape[1]))
    pull = (loading / noise[:, None]).T
    precision = torch.linalg.inv(prior.covariance_matrix) + pull @ loading
    covariance = torch.linalg.inv(precision)
    information = torch.linalg.solve(prior.covariance_matrix, prior.loc)
    loc = (information + (x.flatten(1) - mean) @ pull.T) @ covariance
    return dist.MultivariateNormal(loc, covariance)


def blocks(covariance: Tensor) -> Tensor:  # (T, L, L)
    """Those on the diagonal, of the first of a batch."""
    split = covariance.reshape(-1, STEPS, LATENTS, STEPS, LATENTS)[0]
    return torch.stack([split[t, :, t] for t in range(STEPS)])


# The chain.


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_density_and_moments_of_a_chain(batch) -> None:
    one = chain(*batch)
    exact = dense(one)
    z = torch.randn(3, *batch, STEPS, LATENTS)
    torch.testing.assert_close(one.log_prob(z), exact.log_prob(z.flatten(-2)))
    torch.testing.assert_close(one.mean, exact.mean.unflatten(-1, (STEPS, LATENTS)))
    torch.testing.assert_close(one.variance, exact.variance.unflatten(-1, (STEPS, LATENTS)))
    torch.testing.assert_close(one.covariance_matrix, blocks(exact.covariance_matrix))


def test_draws_of_a_chain_are_its_own() -> None:
    """Dense residuals of draws, whitened, are standard Normal."""
    one = chain()
    exact = dense(one)
    residual = one.sample((20_000,)).flatten(-2) - exact.loc
    white = torch.linalg.solve_triangular(exact.scale_tril, residual.T, upper=False)
    size = white.shape[1]
    assert (white.mean(1).abs() < 5 * size**-0.5).all()
    covariance, identity = white.cov(), torch.eye(len(white))
    assert ((covariance - identity).abs() < 5 * ((1 + identity) / size).sqrt()).all()


def test_a_reversed_chain_runs_backwards() -> None:
    forward = chain(4)
    backward = LinearGaussianChain(
        forward.offset, forward.transition, forward.scale_tril, reverse=True
    )
    z = torch.randn(4, STEPS, LATENTS)
    torch.testing.assert_close(backward.log_prob(z), forward.log_prob(z.flip(-2)))
    for of in ("mean", "variance"):
        torch.testing.assert_close(getattr(backward, of), getattr(forward, of).flip(-2))
    covariance = forward.covariance_matrix.flip(0)
    torch.testing.assert_close(backward.covariance_matrix, covariance)
    with kept_random_state():
        draw = forward.rsample()
    torch.testing.assert_close(backward.rsample(), draw.flip(-2))


def test_an_expanded_chain() -> None:
    one = chain(4, reverse=True).expand((3, 4))
    assert one.reverse
    assert one.rsample((2,)).shape == (2, 3, 4, STEPS, LATENTS)
    assert one.log_prob(torch.zeros(STEPS, LATENTS)).shape == (3, 4)


# The model.


def test_evidence_and_its_gradient() -> None:
    model = drawn()
    x = data(model)
    exact = dense_evidence(model, x)
    torch.testing.assert_close(model.log_evidence(x), exact, atol=1e-9, rtol=0)
    check_gradients(exact.sum(), model, x)


def test_posterior() -> None:
    model = drawn()
    x = data(model)
    posterior, exact = model.posterior(x), dense_posterior(model, x)
    torch.testing.assert_close(posterior.mean, exact.mean.unflatten(-1, (STEPS, LATENTS)))
    torch.testing.assert_close(posterior.covariance_matrix, blocks(exact.covariance_matrix))
    z = torch.randn(6, STEPS, LATENTS)
    torch.testing.assert_close(posterior.log_prob(z), exact.log_prob(z.flatten(1)))


def test_filter() -> None:
    model = drawn()
    x = data(model)
    filtered = model.filter(x)
    for t in range(STEPS):
        exact = dense_posterior(model, x[:, : t + 1])
        here = slice(t * LATENTS, (t + 1) * LATENTS)
        torch.testing.assert_close(filtered.mean[:, t], exact.mean[:, here])
        covariance = exact.covariance_matrix[:, here, here]
        torch.testing.assert_close(filtered.covariance_matrix[:, t], covariance)
    torch.testing.assert_close(filtered.mean[:, -1], model.posterior(x).mean[:, -1])


def test_agrees_with_pyro() -> None:
    """Pyro's chain moves once before its first datum; here it starts there."""
    model = drawn()
    x = data(model)
    prior = model.prior(STEPS)
    moves = torch.cat([torch.zeros(1, LATENTS, LATENTS), prior.transition.mT])
    pyros = dist.GaussianHMM(
        dist.MultivariateNormal(torch.zeros(LATENTS), torch.eye(LATENTS)),
        moves,
        dist.MultivariateNormal(prior.offset, scale_tril=prior.scale_tril),
        model.loading.T,
        dist.Normal(model.mean, model.noise_scale).to_event(1),
        duration=STEPS,
    )
    torch.testing.assert_close(model.log_evidence(x), pyros.log_prob(x))


@pytest.mark.parametrize("num_steps", [1, 2, STEPS])
def test_exact_guide(num_steps) -> None:
    model = drawn(num_steps)
    check_exact_guide(model, data(model))


def test_exact_guide_of_part_of_the_data() -> None:
    check_scale(drawn, data(drawn()))


def test_more_features_than_states_and_fewer() -> None:
    for features, latents in ((7, 2), (1, 4)):
        model = LinearGaussianSSM(features, latents, num_steps=STEPS)
        check_exact_guide(model, data(model))


@pytest.mark.parametrize(
    ("start", "noise", "rtol"), [(1.0, 1.0, 1e-5), (1.0, 1e-3, 2e-3), (1e3, 1e-2, 1e-2)]
)
def test_float32_keeps_its_digits(start, noise, rtol) -> None:
    """Scales that differ much, over many steps: no covariance is formed that would cancel.

    What is left is the rounding of the data, which little noise magnifies.
    """
    model = drawn(num_steps=300)
    model.transition.data = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
    model.initial_scale_tril = start * torch.eye(LATENTS)
    model.noise_scale = torch.full((FEATURES,), noise)
    x = data(model)
    exact, mean = model.log_evidence(x), model.posterior(x).mean
    model = model.float()
    torch.testing.assert_close(model.log_evidence(x).double(), exact, rtol=rtol, atol=0)
    error = (model.posterior(x).mean.double() - mean).abs().max()
    assert error < 1e-5 * mean.abs().max()


def test_autocast_leaves_the_recursions_alone() -> None:
    model = drawn().float()
    x = data(model)
    exact, z = model.log_evidence(x), torch.randn(6, STEPS, LATENTS).float()
    scored = model.posterior(x).log_prob(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.log_evidence(x), exact)
        assert torch.equal(model.posterior(x).log_prob(z), scored)


def test_an_autoregressive_guide_fits_the_model() -> None:
    """Trained for a moment it comes nearer to the evidence, and stays below."""
    model = drawn()
    x = model(size=100).detach()
    guide = AutoregressiveGuide(
        in_features=FEATURES, num_steps=None, latent_features=LATENTS, state_features=16
    )
    objective = IWAE(5, "dreg")
    exact = model.log_evidence(x).mean()
    before = objective.bound(model, guide, x).mean()
    optimiser = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        objective.differentiable_loss(model, guide, x).backward()
        optimiser.step()
    after = objective.bound(model, guide, x).mean()
    assert after < exact
    assert exact - after < 0.5 * (exact - before)


# Errors.


@pytest.mark.parametrize("name", ["in_features", "latent_features of 'z'", "num_steps", "num_data"])
def test_sizes(name) -> None:
    with explained(ProgramError, name, "an integer >= 1", "0", f"Check {name}"):
        LinearGaussianSSM(**{name.split()[0]: 0})


@pytest.mark.parametrize("method", ["log_evidence", "posterior", "filter", "exact_guide"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 2), (4, 0, 3)])
def test_data_of_another_shape(method, shape) -> None:
    expected, hint = "(batch, steps >= 1, 3)", "x[None] makes one sequence a batch"
    with explained(DataError, "x", expected, f"{shape}", hint):
        getattr(drawn(), method)(torch.zeros(shape))


def test_parts_of_a_chain_that_do_not_fit() -> None:
    one = chain()
    with explained(ProgramError, "transition", "(4, 2, 2)", "(5, 2, 2)", "T - 1"):
        LinearGaussianChain(one.offset, one.scale_tril, one.scale_tril)
    with explained(ProgramError, "scale_tril", "(5, 2, 2)", "(4, 2, 2)", "Give one matrix"):
        LinearGaussianChain(one.offset, one.transition, one.transition)
