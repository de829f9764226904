"""Hidden Markov models: against all paths, one by one, and Pyro's own, in float64."""

from itertools import product

import pyro.distributions as dist
import pytest
import torch
from exact_models import check_exact_guide, check_gradients, check_scale, nothing
from explained import explained
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError, PyroLVMError
from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.models import HiddenMarkov
from pyro_lvm.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

STATES, STEPS = 3, 4
each_emission = pytest.mark.parametrize("emission", ["gaussian", "categorical"])


def drawn(emission: str = "gaussian", **options) -> HiddenMarkov:
    model = HiddenMarkov(STATES, emission, in_features=2, num_symbols=5, num_steps=STEPS, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def data(model: HiddenMarkov) -> Tensor:
    return model(size=6).detach()


def paths(model: HiddenMarkov, x: Tensor) -> tuple[Tensor, Tensor]:
    """Every path of states, ``(P, T)``, and its log p(x, z), ``(P, B)``."""
    states = torch.tensor(list(product(range(STATES), repeat=x.shape[1])))
    transition = torch.log_softmax(model.transition_logits, -1)
    log_p = torch.log_softmax(model.initial_logits, -1)[states[:, 0]]
    log_p = log_p + transition[states[:, :-1], states[:, 1:]].sum(-1)
    scores = [model.emission(states[:, t, None]).log_prob(x[:, t]) for t in range(x.shape[1])]
    return states, log_p[:, None] + torch.stack(scores).sum(0)


def marginals(states: Tensor, log_p: Tensor) -> Tensor:  # (B, T, S)
    weight = torch.softmax(log_p, 0)
    indicator = torch.nn.functional.one_hot(states, STATES).to(weight)
    return torch.einsum("pb,pts->bts", weight, indicator)


@each_emission
def test_evidence_and_its_gradient(emission) -> None:
    model = drawn(emission)
    x = data(model)
    exact = paths(model, x)[1].logsumexp(0)
    torch.testing.assert_close(model.log_evidence(x), exact, atol=1e-12, rtol=0)
    check_gradients(exact.sum(), model, x)


@each_emission
def test_posterior_and_filter(emission) -> None:
    model = drawn(emission)
    x = data(model)
    torch.testing.assert_close(model.posterior(x).probs, marginals(*paths(model, x)))
    filtered = [marginals(*paths(model, x[:, : t + 1]))[:, -1] for t in range(STEPS)]
    torch.testing.assert_close(model.filter(x).probs, torch.stack(filtered, 1))


@each_emission
def test_agrees_with_pyro(emission) -> None:
    """Pyro's chain moves once before its first datum; here it starts there."""
    model = drawn(emission)
    x = data(model)
    start = model.initial_logits.expand(1, STATES, STATES)
    moves = model.transition_logits.expand(STEPS - 1, STATES, STATES)
    emissions = model.emission(torch.arange(STATES).expand(STEPS, STATES))
    pyros = dist.DiscreteHMM(torch.zeros(STATES), torch.cat([start, moves]), emissions)
    torch.testing.assert_close(model.log_evidence(x), pyros.log_prob(x))


@each_emission
def test_exact_guide(emission) -> None:
    model = drawn(emission)
    check_exact_guide(model, data(model))


@each_emission
def test_exact_guide_of_part_of_the_data(emission) -> None:
    check_scale(lambda **k: drawn(emission, **k), data(drawn(emission)))


def test_one_step() -> None:
    model = drawn()
    x = data(model)[:, :1]
    torch.testing.assert_close(model.log_evidence(x), paths(model, x)[1].logsumexp(0))
    torch.testing.assert_close(model.posterior(x).probs, marginals(*paths(model, x)))
    check_exact_guide(model, x)


def test_long_sequences_keep_their_digits_in_float32() -> None:
    """Steps are normalised one by one: no log-probability of size T is carried along."""
    model = drawn()
    model.num_steps = 1000
    x = data(model)
    exact, posterior = model.log_evidence(x), model.posterior(x).probs
    model = model.float()
    torch.testing.assert_close(model.log_evidence(x).double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(model.posterior(x).probs.double(), posterior, rtol=0, atol=1e-3)


# Summed out.


@each_emission
def test_enumerated_by_pyro(emission) -> None:
    model = drawn(emission, enumerate_latents=True)
    x = data(model)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, nothing, x)
    torch.testing.assert_close(loss, -model.log_evidence(x).sum())
    check_gradients(-loss, model, x)


@each_emission
@pytest.mark.parametrize("objective", [ELBO(), ELBO(3), IWAE(5)], ids=repr)
def test_enumerated_by_our_objectives(objective, emission) -> None:
    model = drawn(emission, enumerate_latents=True, num_data=30)
    x = data(model)
    torch.testing.assert_close(objective.bound(model, nothing, x), model.log_evidence(x))
    check_gradients(-objective.differentiable_loss(model, nothing, x) / 5, model, x)


def test_a_guide_that_draws_the_states_comes_first() -> None:
    model = drawn(enumerate_latents=True)
    check_exact_guide(model, data(model))


def test_an_autoregressive_guide_fits_the_model() -> None:
    """Its bound has the sites' names and plates, is below the evidence, its weights unbiased."""
    model = drawn()
    x = model(size=200).detach()
    guide = AutoregressiveGuide(
        in_features=2, num_steps=None, site="z_{}", family="categorical", num_categories=STATES
    )
    states, log_p = paths(model, x)
    log_q = guide.posterior(x).log_prob(states.unsqueeze(1))  # (P, B)
    exact, bound = log_p.logsumexp(0), IWAE(200).bound(model, guide, x)
    variance = ((2 * log_p - log_q).logsumexp(0) - 2 * exact).expm1()  # of weights over p(x)
    error = (variance / 200).sum().sqrt() / len(x)
    assert bound.mean() < exact.mean()
    assert abs((bound - exact).exp().mean() - 1) < 4 * error
    assert error < 0.05


# Errors.


@pytest.mark.parametrize("name", ["num_states", "num_steps", "num_data", "in_features"])
def test_sizes(name) -> None:
    with explained(ProgramError, name, "an integer >= 1", "0", f"Check {name}"):
        HiddenMarkov(**{name: 0})


def test_number_of_symbols() -> None:
    with explained(ProgramError, "num_symbols", "an integer >= 1", "-1", "Check num_symbols"):
        HiddenMarkov(3, "categorical", num_symbols=-1)


def test_unknown_emission() -> None:
    with explained(ProgramError, "emission", "one of ['gaussian'", "'poisson'", "gaussian"):
        HiddenMarkov(3, "poisson")


@pytest.mark.parametrize("method", ["log_evidence", "posterior", "filter", "exact_guide"])
@pytest.mark.parametrize(
    ("emission", "shape", "expected"),
    [
        ("gaussian", (4, 7), "(batch, steps >= 1, 2)"),
        ("gaussian", (4, 7, 3), "(batch, steps >= 1, 2)"),
        ("gaussian", (4, 0, 2), "(batch, steps >= 1, 2)"),
        ("categorical", (4, 7, 1), "(batch, steps >= 1)"),
        ("categorical", (7,), "(batch, steps >= 1)"),
    ],
)
def test_data_of_another_shape(method, emission, shape, expected) -> None:
    with explained(DataError, "x", expected, f"{shape}", "x[None] makes one sequence a batch"):
        getattr(drawn(emission), method)(torch.zeros(shape))


@pytest.mark.parametrize("symbol", [-1.0, 5.0, 0.5])
def test_a_symbol_that_is_none(symbol) -> None:
    model, x = drawn("categorical", enumerate_latents=True), torch.zeros(3, STEPS)
    x[1, 2] = symbol
    with pytest.raises(PyroLVMError, match=r"site 'x_2': expected a value that Categorical"):
        ELBO().loss(model, nothing, x)
    with pytest.raises(ValueError, match="within the support"):
        model.log_evidence(x)
