"""Networks with latent weights: a linear one against Bayes' rule, others against loops.

Tolerances of 1e-9 and below are rounding in float64.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pytest
import torch
from pyro.distributions import MultivariateNormal
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_lvm import sample_posterior
from pyro_lvm.errors import DataError, PlateError, ProgramError, PyroLVMError
from pyro_lvm.guides import ImplicitWeights, NormalWeights, SemiImplicitWeights
from pyro_lvm.models import BayesianLinearRegression, BayesianLSTM, BayesianMLP
from pyro_lvm.models.weight_priors import KINDS
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AAE, ELBO, IWAE, SIVI

pytestmark = pytest.mark.usefixtures("float64", "local")
every_prior = pytest.mark.parametrize("prior", KINDS)


@pytest.fixture
def local() -> Iterator[None]:
    """Guides of one class that share no parameter."""
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    x = torch.randn(12, 3)
    return x, x.sum(1).sin() + 0.1 * torch.randn(12)


def exact(noise_scale: float, **options: Any) -> tuple[BayesianMLP, BayesianLinearRegression]:
    """A network without hidden layers, and the regression on (x, 1) that it is."""
    network = BayesianMLP(3, (), prior_scale=0.7, noise_scale=noise_scale, **options)
    precision = (noise_scale / 0.7) ** 2
    return network, BayesianLinearRegression(
        4, prior_precision=precision, noise_scale=noise_scale, num_data=network.num_data
    )


def with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1)], 1)


def full_normal(posterior: MultivariateNormal) -> NormalWeights:
    """The guide that is this Normal."""
    guide = NormalWeights({"w1": posterior.mean}, covariance="full")
    tril, size = posterior.scale_tril, len(posterior.mean)
    below = tril[tuple(torch.tril_indices(size, size, -1))]
    raw = torch.cat([posterior.mean, (tril.diagonal() - 1e-6).expm1().log(), below])
    guide.raw["w1"].data.copy_(raw)
    return guide


def exact_guide(regression: BayesianLinearRegression, x: Tensor, y: Tensor) -> NormalWeights:
    joint = regression.posterior(with_ones(x), y)
    return full_normal(joint.weights(joint.precision.mean))


def test_linear_network_and_its_posterior_have_the_exact_evidence(pairs: Any) -> None:
    network, regression = exact(0.3)
    x, y = pairs
    guide = exact_guide(regression, x, y)
    evidence = regression.log_evidence(with_ones(x), y).expand(50)
    log_weights = IWAE(50).log_weights(network, guide, x, y)
    torch.testing.assert_close(log_weights, evidence, rtol=0, atol=1e-9)


def test_the_bound_of_another_normal_misses_its_divergence(pairs: Any) -> None:
    network, regression = exact(0.3)
    x, y = pairs
    posterior = exact_guide(regression, x, y).distributions()["w1"]
    guide = NormalWeights({"w1": posterior.mean + 0.3}, start_scale=0.1)
    q = MultivariateNormal(posterior.mean + 0.3, (0.1 + 1e-6) ** 2 * torch.eye(4))
    best = regression.log_evidence(with_ones(x), y) - kl_divergence(q, posterior)
    log_weights = ELBO(20_000).log_weights(network, guide, x, y)
    error = log_weights.std() / len(log_weights) ** 0.5
    assert error < 0.01 * kl_divergence(q, posterior)
    assert abs(log_weights.mean() - best) < 4 * error


def test_minibatches_have_the_gradient_of_all_data_on_average(pairs: Any) -> None:
    """At common noise the mean over a partition into batches is the gradient of the whole."""
    x, y = pairs
    whole = BayesianMLP(3, (4,))
    parts = BayesianMLP(3, (4,), num_data=12)
    guide = NormalWeights(whole.starts(), covariance="low_rank", start_scale=0.3)

    def gradients(model: nn.Module, *data: Tensor) -> list[Tensor]:
        pyro.set_rng_seed(1)
        return list(torch.autograd.grad(ELBO(3)(model, guide)(*data), list(guide.parameters())))

    batches = [gradients(parts, *pair) for pair in zip(x.split(4), y.split(4), strict=True)]
    means = [torch.stack(found).mean(0) for found in zip(*batches, strict=True)]
    torch.testing.assert_close(means, gradients(whole, x, y), rtol=1e-9, atol=1e-9)


def test_bounds_of_several_draws_refuse_minibatches(pairs: Any) -> None:
    x, y = pairs
    model = BayesianMLP(3, (4,), num_data=40)
    with pytest.raises(PlateError, match="plate 'data': expected every site inside it"):
        IWAE(2).bound(model, NormalWeights(model.starts()), x, y)


@every_prior
@pytest.mark.parametrize("num_classes", [None, 5])
def test_particles_are_a_loop(prior: str, num_classes: int | None, pairs: Any) -> None:
    x, y = pairs
    y = y if num_classes is None else torch.arange(12) % 5
    model = BayesianMLP(3, (6, 4), num_classes, prior=prior)
    guide = NormalWeights(model.starts(), start_scale=0.4)
    particles = ELBO(7).particles(model, guide, x, y)
    values = {name: particles.values[name].reshape(7, -1) for name in model.latent_features}
    for k, log_p in enumerate(particles.log_p):
        one = {name: value[k] for name, value in values.items()}
        conditioned = pyro.poutine.condition(model, one)
        alone = pyro.poutine.trace(conditioned).get_trace(x, y).log_prob_sum()
        torch.testing.assert_close(log_p, alone, rtol=1e-9, atol=1e-9)
        by_hand = model.outcome(x, one).log_prob(y)
        torch.testing.assert_close(model.outcome(x, values).log_prob(y)[k], by_hand)


def test_the_network_is_that_of_torch(pairs: Any) -> None:
    x, _ = pairs
    model = BayesianMLP(3, (6, 4), 5)
    layers = [nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5)]
    draws = {
        f"w{number}": torch.cat([layer.weight, layer.bias[:, None]], 1).flatten()
        for number, layer in enumerate(layers[::2], start=1)
    }
    logits = nn.Sequential(*layers)(x)
    found = model.outcome(x, draws).logits
    torch.testing.assert_close(found, logits.log_softmax(-1), rtol=0, atol=1e-12)


def test_draws_of_a_posterior_predict(pairs: Any) -> None:
    model = BayesianMLP(3, (6,))
    draws = sample_posterior(model, NormalWeights(model.starts()), *pairs, num_samples=9)
    assert model.outcome(pairs[0], draws).batch_shape == (9, 12)
    assert model(pairs[0]).shape == (12,)


def test_semi_implicit_guides_fit(pairs: Any) -> None:
    model = BayesianMLP(3, (6,))
    assert (
        SIVI(2, num_mixing=3).bound(model, SemiImplicitWeights(model.latent_features), *pairs) < 0
    )


def test_implicit_guides_start_near_a_standard_normal() -> None:
    guide = ImplicitWeights({"w1": 4, "w2": 3})
    with pyro.plate("draws", 10_000):
        drawn = torch.cat(list(guide().values()), -1)
    # Networks at random: over seeds means are off by up to 0.06, deviations by 0.02.
    assert (drawn.mean(0).abs() < 0.15).all()
    assert ((drawn.std(0) - 1).abs() < 0.05).all()


def test_implicit_guides_train_against_a_discriminator_of_weights(pairs: Any) -> None:
    network, _ = exact(0.3)
    guide = ImplicitWeights(network.latent_features, noise_hidden=(8,))
    objective = AAE(Discriminator(4, hidden=(8,)), num_particles=16)
    loss = objective(network, guide)(*pairs)
    slopes = torch.autograd.grad(loss, list(guide.parameters()))
    assert all(slope.isfinite().all() and slope.any() for slope in slopes)
    with pytest.raises(PyroLVMError, match="has no density"):
        ELBO().loss(network, guide, *pairs)


@pytest.mark.parametrize("covariance", ["diagonal", "low_rank", "full"])
def test_moments_are_those_of_draws(covariance: str) -> None:
    guide = NormalWeights({"w1": torch.randn(5)}, covariance=covariance, start_scale=0.5)
    with pyro.plate("draws", 40_000):
        drawn = guide()["w1"]
    mean, scale = guide.moments()["w1"]
    assert ((drawn.mean(0) - mean).abs() < 5 * scale / 200).all()
    assert ((drawn.std(0) / scale).log().abs() < 5 / (2 * 40_000) ** 0.5).all()


def test_every_parameter_of_the_guide_has_a_gradient(pairs: Any) -> None:
    for covariance in ("diagonal", "low_rank", "full"):
        model = BayesianMLP(3, (2,), prior="ard")
        guide = NormalWeights(model.starts(), covariance=covariance)
        parameters = [*guide.parameters(), *model.parameters()]
        slopes = torch.autograd.grad(ELBO()(model, guide)(*pairs), parameters)
        assert all(slope.isfinite().all() and slope.all() for slope in slopes)


# Automatic relevance determination.


def divergence(model: BayesianMLP, guide: NormalWeights) -> Tensor:
    """KL(q(w) || p(w)) of all weights, in closed form."""
    normals = guide.distributions()
    return sum(
        kl_divergence(normals[name], model.priors.prior(name)) for name in model.priors.shapes
    )


@pytest.mark.parametrize("prior", ["ard", "ard_columns"])
def test_the_best_scales_are_a_stationary_point(prior: str) -> None:
    model = BayesianMLP(3, (4,), prior=prior)
    guide = NormalWeights(model.starts(), start_scale=0.3)
    model.priors.maximise(guide.moments())
    slopes = torch.autograd.grad(divergence(model, guide), list(model.parameters()))
    for slope in slopes:
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)


def test_the_divergence_at_the_best_scales_is_that_of_the_paper() -> None:
    model = BayesianMLP(3, (4,), prior="ard")
    guide = NormalWeights(model.starts(), start_scale=0.3)
    model.priors.maximise(guide.moments())
    ratios = [
        (mean / scale) ** 2
        for name, (mean, scale) in guide.moments().items()
        if name != "log_noise"
    ]
    expected = sum(0.5 * torch.log1p(ratio).sum() for ratio in ratios)
    torch.testing.assert_close(divergence(model, guide), expected, rtol=1e-9, atol=0)


def test_a_column_that_says_nothing_is_found(pairs: Any) -> None:
    """Of three inputs the outcomes know the first: the scales of the others fall."""
    x, _ = pairs
    model = BayesianMLP(3, (), prior="ard_columns", noise_scale=0.1)
    guide = NormalWeights(model.starts(), start_scale=0.05)
    optimiser = torch.optim.Adam(guide.parameters(), 0.03)
    module = ELBO(5)(model, guide)
    for _ in range(150):
        model.priors.maximise(guide.moments())
        optimiser.zero_grad()
        module(x, x[:, 0]).backward()
        optimiser.step()
    scales = model.priors.log_scale["w1"][0].exp()
    assert scales[0] > 0.8
    assert (scales[1:] < 0.1).all()


@pytest.mark.parametrize("prior", ["normal", "log_uniform"])
def test_pyro_uses_the_closed_forms(prior: str, pairs: Any) -> None:
    """Its mean-field ELBO takes the divergences themselves, of the log-uniform prior too."""
    model = BayesianMLP(3, (4,), prior=prior, noise_scale=0.5)
    guide = NormalWeights(model.starts(), start_scale=0.3)
    pyro.set_rng_seed(1)
    analytic = -TraceMeanField_ELBO().loss(model, guide, *pairs)
    pyro.set_rng_seed(1)
    likelihood = model.outcome(pairs[0], guide()).log_prob(pairs[1]).sum()
    assert abs(analytic - (likelihood - divergence(model, guide))) < 1e-9


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: BayesianMLP(0), "in_features: expected an integer >= 1, got 0"),
    (lambda: BayesianMLP(3, (0,)), "hidden: expected an integer >= 1, got 0"),
    (lambda: BayesianMLP(3, num_classes=0), "num_classes: expected an integer >= 1, got 0"),
    (lambda: BayesianMLP(3, num_data=0), "num_data: expected an integer >= 1, got 0"),
    (lambda: BayesianMLP(3, prior="spike"), "prior: expected one of .*, got 'spike'"),
    (lambda: BayesianMLP(3, prior_scale=0.0), "prior_scale: expected .* above 0, got 0.0"),
    (lambda: BayesianMLP(3, noise_scale=-1.0), "noise_scale: expected .* above 0, got -1.0"),
    (lambda: NormalWeights({}), "start: expected a vector for each site"),
    (lambda: NormalWeights({"w1": torch.zeros(2, 2)}), "start: expected a vector .* got shapes"),
    (lambda: NormalWeights({"w1": torch.zeros(2)}, covariance="x"), "covariance: expected one of"),
    (lambda: NormalWeights({"w1": torch.zeros(2)}, rank=0), "rank: expected an integer >= 1"),
]


@pytest.mark.parametrize(("make", "text"), WRONG)
def test_wrong_arguments_are_explained(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ProgramError, match=text):
        make()


def test_wrong_data_are_explained(pairs: Any) -> None:
    model = BayesianMLP(3)
    with pytest.raises(DataError, match=r"y: expected shape \(12,\), got shape \(12, 1\)"):
        model(pairs[0], pairs[1][:, None])
    with pytest.raises(DataError, match=r"x: expected shape \(batch, 3\)"):
        model(pairs[0][:, :2])


# Recurrent networks.


def as_draws(lstm: nn.LSTM, head: nn.Linear) -> dict[str, Tensor]:
    """Weights of torch's cell, which adds two biases, as draws of the sites."""
    first, second, *biases = (p.detach() for p in lstm.parameters())
    w1 = torch.cat([first, second, sum(biases)[:, None]], 1)
    w2 = torch.cat([head.weight, head.bias[:, None]], 1).detach()
    return {"w1": w1.flatten(), "w2": w2.flatten()}


def test_the_recurrent_network_is_that_of_torch() -> None:
    lstm, head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 5)
    model, x = BayesianLSTM(3, 4, 5), torch.randn(6, 8, 3)
    expected = head(lstm(x)[0][:, -1]).log_softmax(-1)
    found = model.outcome(x, as_draws(lstm, head)).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_group_variables_act_where_they_should() -> None:
    """Against a loop over the steps that multiplies inputs, states and gates themselves."""
    model, x = BayesianLSTM(3, 4, 5, groups=True), torch.randn(6, 8, 3)
    draws = {name: torch.randn(size) for name, size in model.latent_features.items()}
    w1, w2 = model.matrices(draws)["w1"], model.matrices(draws)["w2"]
    state = cell = torch.zeros(6, 4)
    for step in x.unbind(1):
        seen = torch.cat([draws["inputs"] * step, draws["units"] * state], 1)
        a = draws["gates"] * (seen @ w1[:, :-1].T) + w1[:, -1]
        i, f, g, o = a.chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
    logits = (draws["units"] * state) @ w2[:, :-1].T + w2[:, -1]
    found = model.outcome(x, draws).logits
    torch.testing.assert_close(found, logits.log_softmax(-1), rtol=0, atol=1e-12)


def assert_particles_are_a_loop(model: BayesianLSTM, x: Tensor, y: Tensor) -> None:
    guide = NormalWeights(model.starts(), start_scale=0.3)
    particles = ELBO(5).particles(model, guide, x, y)
    for k, log_p in enumerate(particles.log_p):
        one = {name: particles.values[name][k].flatten() for name in model.latent_features}
        conditioned = pyro.poutine.condition(model, one)
        alone = pyro.poutine.trace(conditioned).get_trace(x, y).log_prob_sum()
        torch.testing.assert_close(log_p, alone, rtol=1e-9, atol=1e-9)


@every_prior
def test_recurrent_particles_are_a_loop(prior: str) -> None:
    model = BayesianLSTM(3, 4, groups=True, prior=prior)
    assert_particles_are_a_loop(model, torch.randn(6, 8, 3), torch.randn(6))


def test_the_network_of_words_is_that_of_torch() -> None:
    """Numbers of words by rows of an embedding; a word without weight is read as zeros."""
    table, lstm, head = nn.Embedding(7, 3), nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
    model = BayesianLSTM(3, 4, 2, vocabulary=7, groups=True)
    x = torch.randint(7, (6, 8))
    words = {"words": table.weight.detach().flatten()}
    draws = model.starts() | as_draws(lstm, head) | words
    expected = head(lstm(table(x))[0][:, -1]).log_softmax(-1)
    found = model.outcome(x, draws).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    without = draws | {"vocabulary": torch.ones(7).index_fill(0, torch.tensor([2]), 0.0)}
    seen = table(x) * (x != 2)[..., None]
    expected = head(lstm(seen)[0][:, -1]).log_softmax(-1)
    torch.testing.assert_close(model.outcome(x, without).logits, expected, rtol=0, atol=1e-12)


def test_particles_of_words_are_a_loop() -> None:
    model = BayesianLSTM(3, 4, 2, vocabulary=7, groups=True)
    assert_particles_are_a_loop(model, torch.randint(7, (6, 8)), torch.randint(2, (6,)))


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.zeros(2, 3), "x: expected integers of shape"),
        (torch.zeros(2, 3, 1).long(), "x: expected integers of shape"),
        (torch.full((2, 3), 7), "x: expected words from 0 to 6, got words from 7 to 7"),
    ],
)
def test_wrong_words_are_explained(x: Tensor, text: str) -> None:
    with pytest.raises(DataError, match=text):
        BayesianLSTM(3, 4, 2, vocabulary=7)(x)


def test_without_an_input_nothing_of_it_is_left() -> None:
    model = BayesianLSTM(3, 4, 5, groups=True)
    draws = model.starts() | {"inputs": torch.tensor([1.0, 0.0, 1.0])}
    folded = model.folded(model.matrices(draws))
    assert [bool(column.any()) for column in folded["w1"][:, :3].T] == [True, False, True]
    x = torch.randn(6, 8, 3)
    other = x.clone()
    other[..., 1] = 9.0
    assert torch.equal(model.outcome(x, draws).logits, model.outcome(other, draws).logits)
