"""The mean of every gradient estimator is the exact gradient; some have lower variance.

Exact gradients come from quadrature (``pyro_lvm.oracles.expected_bound``), differentiated:
every bound here is a sum of Rényi bounds of some number of draws.
Each estimate averages independent replicates of a plate of identical data. A column fails
when it is more than ``MAX_Z`` standard errors off: over the 600 or so columns of this file
that happens to right code about once in 4e4 runs. The standard error must be below
``MAX_ERROR`` of the gradient's norm, so a fault of 0.2 of it cannot pass.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from small_programs import PROGRAMS, Program, one_level, two_level
from standard_errors import assert_mean
from torch import Tensor

from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.errors import ProgramError
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, TVO, Renyi
from pyro_lvm.oracles import expected_bound

MAX_Z = 5.5
MAX_ERROR = 0.035
REPLICATES = 100
ROWS = 1000

pytestmark = pytest.mark.usefixtures("float64")


def renyi_terms(objective: Objective) -> list[tuple[float, int, float]]:
    """The bound's mean as a sum of (factor, draws, order) of Rényi bounds."""
    count = objective.num_particles
    match objective:
        case ELBO():
            return [(1.0, count, 1.0)]
        case IWAE():
            return [(1.0, count, 0.0)]
        case Renyi():
            return [(1.0, count, objective.alpha)]
        case CIWAE():
            share = objective.elbo_weight
            return [(share, count, 1.0), (1.0 - share, count, 0.0)]
        case MIWAE():
            return [(1.0, count // objective.num_groups, 0.0)]
    raise NotImplementedError(objective)


def exact_gradient(program: Program, objective: Objective, beta: float = 1.0) -> Tensor:
    log_weights, masses = program.grid(beta)
    terms = renyi_terms(objective)
    value = sum(f * expected_bound(log_weights, masses, k, order) for f, k, order in terms)
    grads = torch.autograd.grad(value, program.leaves, allow_unused=True)
    return torch.stack([torch.zeros(()) if g is None else g for g in grads])


def sampled_gradients(program: Program, objective: Objective, rows: int = ROWS) -> Tensor:
    """Ascent direction per datum, one row a replicate."""
    draws = []
    for _ in range(REPLICATES):
        loss = objective.differentiable_loss(program.model, program.guide, rows)
        grads = torch.autograd.grad(loss, program.leaves, allow_unused=True)
        draws.append(torch.stack([torch.zeros(()) if g is None else -g / rows for g in grads]))
    return torch.stack(draws)


OBJECTIVES = {
    "ELBO-1": lambda gradient: ELBO(1, gradient),
    "ELBO-4": lambda gradient: ELBO(4, gradient),
    "IWAE-5": lambda gradient: IWAE(5, gradient),
    "Renyi-0.5": lambda gradient: Renyi(3, gradient, alpha=0.5),
    "Renyi--0.5": lambda gradient: Renyi(3, gradient, alpha=-0.5),
    "CIWAE-4": lambda gradient: CIWAE(4, gradient, elbo_weight=0.3),
    "MIWAE-2x3": lambda gradient: MIWAE(6, gradient, num_groups=2),
    "MIWAE-3x1": lambda gradient: MIWAE(3, gradient, num_groups=3),
}
GRADIENTS = ["reparam", "stl", "dreg", "score", "vimco", "ovis"]
FAST = {"ELBO-1", "ELBO-4", "IWAE-5", "CIWAE-4", "MIWAE-2x3"}


def cells() -> list:
    """Every program, objective and gradient; the costly ones that say least are slow."""

    def cell(make_program, name: str, gradient: str):
        costly = make_program in PROGRAMS[2:] and gradient in ("score", "vimco", "ovis")
        doubled = name not in FAST or (make_program is PROGRAMS[3] and name != "IWAE-5")
        marks = [pytest.mark.slow] if costly and doubled else []
        label = f"{make_program.__name__}-{name}-{gradient}"
        return pytest.param(make_program, OBJECTIVES[name], gradient, marks=marks, id=label)

    return [cell(p, name, g) for p in PROGRAMS for name in OBJECTIVES for g in GRADIENTS]


def is_refused(objective: Objective, gradient: str) -> bool:
    single, bends = objective.num_particles == 1, not objective.is_linear
    vanishes = isinstance(objective, ELBO | CIWAE) or getattr(objective, "num_groups", 1) == 3
    return {
        "stl": bends and not single,
        "vimco": single,
        "ovis": vanishes,
    }.get(gradient, False)


@pytest.mark.parametrize(("make_program", "make_objective", "gradient"), cells())
def test_mean_is_the_exact_gradient(make_program, make_objective, gradient) -> None:
    program = make_program()
    if is_refused(make_objective("reparam"), gradient):
        with pytest.raises(ProgramError, match=r"gradient="):
            make_objective(gradient)
        return
    objective = make_objective(gradient)
    if program.is_discrete and gradient in ("reparam", "stl", "dreg"):
        with pytest.raises(ProgramError, match=r"(?s)site 'c'.*score"):
            objective.differentiable_loss(program.model, program.guide, 2)
        return
    rows = 10 * ROWS if program.is_discrete else ROWS
    assert_mean(
        sampled_gradients(program, objective, rows),
        exact_gradient(program, objective),
        max_error=MAX_ERROR,
    )


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
@pytest.mark.parametrize("make_program", [one_level, two_level], ids=lambda p: p.__name__)
def test_piwae_gives_model_and_guide_a_bound_each(make_program, gradient) -> None:
    """The model's entries are those of all draws' bound, the guide's of a group's."""
    program, objective = make_program(), PIWAE(6, gradient, num_groups=2)
    number = len(program.theta)
    of_all, of_group = (exact_gradient(program, IWAE(k)) for k in (6, 3))
    assert (of_all - of_group).abs().min() > 0.01, "one bound for both would pass"
    exact = torch.cat([of_all[:number], of_group[number:]])
    assert_mean(sampled_gradients(program, objective), exact, max_error=MAX_ERROR)


REFUSED_BY_OVIS = [
    lambda: ELBO(4, "ovis"),
    lambda: CIWAE(4, "ovis", elbo_weight=0.3),
    lambda: MIWAE(4, "ovis", num_groups=4),
    lambda: Renyi(4, "ovis", alpha=1.5),
]


@pytest.mark.parametrize("make", REFUSED_BY_OVIS, ids=["ELBO", "CIWAE", "MIWAE", "Renyi"])
def test_ovis_needs_a_bound_that_one_zero_weight_leaves_finite(make) -> None:
    expected = "stays finite where one weight is zero"
    with explained(ProgramError, "(gradient='ovis')", expected, "one that does not", "'vimco'"):
        make()


def test_gradients_that_an_objective_does_not_take() -> None:
    with explained(ProgramError, "gradient", "one of ['score']", "'ovis'", "gradient='score'"):
        TVO(4, "ovis")
    with explained(ProgramError, "num_particles", "K >= 2 with gradient='ovis'", "1", "5"):
        IWAE(1, "ovis")


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
@pytest.mark.parametrize("make_program", [one_level, two_level], ids=lambda p: p.__name__)
def test_warm_up_keeps_the_gradient_exact(make_program, gradient) -> None:
    program, objective = make_program(), IWAE(5, gradient, beta=0.4)
    exact = exact_gradient(program, objective, beta=0.4)
    assert_mean(sampled_gradients(program, objective), exact, max_error=MAX_ERROR)


def test_warm_up_with_score_sites() -> None:
    program, objective = PROGRAMS[2](), IWAE(5, "vimco", beta=0.4)
    exact = exact_gradient(program, objective, beta=0.4)
    assert_mean(sampled_gradients(program, objective, 10 * ROWS), exact, max_error=MAX_ERROR)


def test_stl_at_many_particles_is_biased_and_refused() -> None:
    """The estimator itself, built by hand past the check, is far from the exact gradient."""
    program, objective = one_level(), IWAE(5)
    with pytest.raises(ProgramError, match="dreg"):
        IWAE(5, "stl")
    objective.gradient = "stl"
    draws, exact = sampled_gradients(program, objective), exact_gradient(program, objective)
    model_entries = draws[:, :2], exact[:2]
    assert_mean(*model_entries, max_error=MAX_ERROR)
    error = draws[:, 2:].std(0) / REPLICATES**0.5
    z_score = (draws[:, 2:].mean(0) - exact[2:]).abs() / error
    assert z_score.max() > 50


@pytest.mark.parametrize("make_program", [one_level, two_level], ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    ("make", "gradient", "least"),
    [(lambda g: ELBO(1, g), "stl", 1.5), (lambda g: IWAE(5, g), "dreg", 2.0)],
    ids=["ELBO-stl", "IWAE-dreg"],
)
def test_path_gradients_have_lower_variance(make_program, make, gradient, least) -> None:
    """Total variance of the guide's entries, reparam over the path estimator; printed."""
    program = make_program()
    first = len(program.theta)
    plain = sampled_gradients(program, make("reparam"))[:, first:].var(0).sum()
    path = sampled_gradients(program, make(gradient))[:, first:].var(0).sum()
    print(f"{program.name}: variance reparam / {gradient} = {(plain / path).item():.1f}")
    assert plain / path > least


@pytest.mark.parametrize("objective", [ELBO(1, "stl"), ELBO(3, "stl"), IWAE(5, "dreg")])
def test_path_gradient_vanishes_at_the_exact_posterior(objective) -> None:
    loc = torch.tensor(0.5, requires_grad=True)
    scale = torch.tensor(0.5**0.5, requires_grad=True)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc * x, scale))

    objective.differentiable_loss(model, guide, torch.randn(20)).backward()
    assert loc.grad.abs() < 1e-12
    assert scale.grad.abs() < 1e-12


def test_score_gradients_agree_with_enumeration() -> None:
    """Four Bernoulli latents, five particles: all 2^5 draws of each, weighted by probability."""
    x = torch.tensor([0.3, 2.1, -1.0, 1.7])
    logits = torch.zeros(4, requires_grad=True)
    copies = 50

    def model() -> None:
        with pyro.plate("data", 4 * copies):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x.repeat(copies))

    def guide() -> None:
        with pyro.plate("data", 4 * copies):
            pyro.sample("z", dist.Bernoulli(logits=logits.repeat(copies)))

    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5).T[..., None]  # (5, 32, 1)
    log_q = dist.Bernoulli(logits=logits).log_prob(z)
    log_p = dist.Bernoulli(0.3).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(x)
    bounds = (log_p - log_q).logsumexp(0) - torch.tensor(5.0).log()
    exact = -(log_q.sum(0).exp() * bounds).sum()
    (exact_grad,) = torch.autograd.grad(exact, logits)
    assert abs(exact.item() - 6.917) < 5e-4
    torch.testing.assert_close(
        exact_grad, torch.tensor([0.120, -0.069, 0.301, -0.028]), atol=5e-4, rtol=0
    )
    for gradient in ("score", "vimco", "ovis"):
        objective = IWAE(5, gradient)
        draws = torch.stack(
            [
                torch.autograd.grad(objective.differentiable_loss(model, guide), logits)[0] / copies
                for _ in range(REPLICATES)
            ]
        )
        error = draws.std(0) / len(draws) ** 0.5
        assert ((draws.mean(0) - exact_grad).abs() / error).max() < MAX_Z
        assert error.max() < 0.1 * exact_grad.norm()


def test_gradient_under_subsampling_is_the_full_one() -> None:
    """Four different data, one of them a step: N/B times its gradient has the full mean."""
    x = torch.tensor([-1.0, 0.2, 0.9, 2.5])
    w = torch.tensor(0.3, requires_grad=True)

    def model(x: Tensor, size: int) -> None:
        with pyro.plate("data", 4, subsample_size=size) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x[index])

    def guide(x: Tensor, size: int) -> None:
        with pyro.plate("data", 4, subsample_size=size) as index:
            pyro.sample("z", dist.Normal(w * x[index], 0.9))

    objective = IWAE(5, "dreg")

    def gradients(size: int, count: int) -> Tensor:
        losses = [objective.differentiable_loss(model, guide, x, size) for _ in range(count)]
        return torch.stack([torch.autograd.grad(loss, w)[0] for loss in losses])

    part, full = gradients(1, 1600), gradients(4, 600)
    error = (part.var() / len(part) + full.var() / len(full)) ** 0.5
    assert abs(part.mean() - full.mean()) < MAX_Z * error
    assert error < 0.1 * full.mean().abs()


def test_model_entries_of_dreg_are_the_plain_ones() -> None:
    """At the same draws, dreg changes the guide's gradient and not the model's."""
    program = two_level()
    grads = []
    for gradient in ("reparam", "dreg"):
        pyro.set_rng_seed(3)
        loss = IWAE(5, gradient).differentiable_loss(program.model, program.guide, 7)
        grads.append(torch.autograd.grad(loss, program.leaves))
    for plain, doubly in zip(grads[0][:2], grads[1][:2], strict=True):
        torch.testing.assert_close(plain, doubly)
    assert not torch.allclose(torch.stack(grads[0][2:]), torch.stack(grads[1][2:]))


def test_free_bits_stop_the_kl_gradient_only() -> None:
    program = one_level()
    loss = ELBO(4, free_bits=100.0).differentiable_loss(program.model, program.guide, 50)
    grads = dict(
        zip(
            [*program.theta, *program.phi],
            torch.autograd.grad(loss, program.leaves, allow_unused=True),
            strict=True,
        )
    )
    assert grads["a"] is None or grads["a"] == 0  # the prior's parameter
    assert grads["b"].abs() > 0


def test_schedule_moves_with_each_differentiable_loss() -> None:
    program = one_level()
    objective = ELBO(beta=LinearWarmup(num_steps=2))
    objective.loss(program.model, program.guide, 3)
    assert objective.beta_now() == 0.0
    betas = []
    for _ in range(3):
        objective.differentiable_loss(program.model, program.guide, 3)
        betas.append(objective.beta_now())
    assert betas == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("gradient", "guide_slope"), [("reparam", -0.5), ("dreg", 0.5)], ids=["reparam", "dreg"]
)
def test_signal_to_noise_in_the_number_of_particles(gradient, guide_slope) -> None:
    """Rainforth et al. (2018): the model's grows as sqrt(K), the guide's falls so; dreg mends it.

    The signal is exact and the noise a standard deviation of ``REPLICATES`` draws, known to 7 %:
    a slope over a factor of 16 in K is then known to 0.04, and 0.15 is asked for.
    """
    counts = torch.tensor([8.0, 32.0, 128.0])
    ratios = []
    for count in counts.int().tolist():
        program, objective = one_level(), IWAE(count, gradient)
        noise = sampled_gradients(program, objective, rows=100).std(0)
        ratios.append((exact_gradient(program, objective).abs() / noise).log())
    slopes = torch.stack(ratios).diff(dim=0).sum(0) / (counts[-1] / counts[0]).log()
    expected = torch.tensor([0.5, 0.5, guide_slope, guide_slope])  # a, b of the model; m, s
    print(f"{gradient}: slopes {slopes.tolist()}")
    assert (slopes - expected).abs().max() < 0.15
