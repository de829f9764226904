"""Learned priors of kernels: the bound against the exact divergence, the network against loops.

Tolerances of 1e-9 and below are rounding: log-densities here are of size 100.
"""

from collections.abc import Callable
from math import log
from typing import Any

import pyro
import pytest
import torch
from pyro.distributions import MultivariateNormal
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, max_pool2d

from benchmarks.deep_weight_prior import PRIORS, STARTS, key, markdown, run
from benchmarks.kernel_priors import SIZES, learn, rescale
from pyro_lvm.data import fashion_mnist
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import KernelEncoder, KernelPosterior
from pyro_lvm.models import VAE, BayesianConvNet, FactorAnalysis
from pyro_lvm.objectives import ELBO, IWAE

FEATURES, LATENTS, KERNELS = 25, 4, 3
WIDE = 0.5 * LATENTS * (2.0**2 - 1 - log(2.0**2))  # KL(N(m, 4 S) || N(m, S)), nats


class Reverse(nn.Module):
    """The exact posterior of a kernel's factors, ``width`` times as wide."""

    def __init__(self, prior: FactorAnalysis, width: float = 1.0) -> None:
        super().__init__()
        self.exact = prior.posterior
        self.width = width

    def forward(self, w: Tensor) -> MultivariateNormal:
        posterior = self.exact(w.flatten(0, -2))
        loc = posterior.mean.unflatten(0, w.shape[:-1])
        return MultivariateNormal(loc, scale_tril=self.width * posterior.scale_tril[0])


@pytest.fixture
def prior(float64: torch.dtype) -> FactorAnalysis:
    """A linear decoder of 5 by 5 kernels."""
    model = FactorAnalysis(FEATURES, LATENTS).requires_grad_(False).eval()
    model.loading.normal_()
    model.mean.normal_()
    model.noise_scale = 0.2 + torch.rand(FEATURES)
    return model


def _silent(prior: FactorAnalysis) -> BayesianConvNet:
    """A network whose classes are equally likely whatever its kernels: ELBO = -KL - log 10."""
    model = BayesianConvNet(6, channels=(KERNELS,), kernel_sizes=(5,), priors=[prior])
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return model


def _log_weights(prior: FactorAnalysis, guide: KernelPosterior, count: int) -> tuple[Tensor, Any]:
    """What the ELBO averages, without the likelihood, and the kernels drawn."""
    x, y = torch.rand(1, 36), torch.tensor([3])
    particles = ELBO(count).particles(_silent(prior), guide, x, y)
    return particles.log_weights + log(10), particles.values["w1"]


def _guide(reverse: nn.Module) -> KernelPosterior:
    return KernelPosterior([torch.randn(KERNELS, FEATURES)], [reverse], start_scale=0.5)


def _divergence(prior: FactorAnalysis, guide: KernelPosterior) -> Tensor:
    """KL(q(w) || p(w)) of all kernels, in closed form."""
    covariance = prior.loading @ prior.loading.T + prior.noise_scale.diag() ** 2
    q = MultivariateNormal(guide.loc[0], 0.25 * torch.eye(FEATURES))
    p = MultivariateNormal(prior.mean, covariance)
    return torch.distributions.kl_divergence(q, p).sum()


def test_with_the_exact_reverse_model_each_draw_gives_the_density_of_its_kernels(
    prior: FactorAnalysis,
) -> None:
    guide = _guide(Reverse(prior))
    log_weights, w = _log_weights(prior, guide, 100)
    log_p = prior.log_evidence(w.flatten(0, 1)).unflatten(0, w.shape[:2])
    log_q = torch.distributions.Normal(guide.loc[0], 0.5 + 1e-6).log_prob(w).sum(-1)
    torch.testing.assert_close(log_weights, (log_p - log_q).sum(-1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("width", "excess"), [(1.0, 0.0), (2.0, WIDE)])
def test_bound_exceeds_the_divergence_by_that_of_the_reverse_model(
    prior: FactorAnalysis, width: float, excess: float
) -> None:
    guide = _guide(Reverse(prior, width))
    log_weights, _ = _log_weights(prior, guide, 20_000)
    error = log_weights.std() / len(log_weights) ** 0.5
    assert error < 0.1 * WIDE
    gap = -log_weights.mean() - _divergence(prior, guide)
    assert abs(gap - KERNELS * excess) < 4 * error


def test_more_draws_of_the_reverse_model_come_nearer(prior: FactorAnalysis) -> None:
    """A kernel is a datum of the VAE: IWAE bounds its log p(w), and KL(q || p) with it."""
    reverse = Reverse(prior, width=2.0)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", reverse(x))

    w = torch.randn(FEATURES) + 0.5 * torch.randn(2000, FEATURES)  # of one Normal
    lost = [prior.log_evidence(w) - IWAE(k).bound(prior, guide, w) for k in (1, 10, 100)]
    one, ten, hundred = (gap.mean() for gap in lost)
    errors = [gap.std() / len(gap) ** 0.5 for gap in lost]
    assert max(errors) < 0.1 * WIDE
    assert abs(one - WIDE) < 4 * errors[0]
    assert -4 * errors[2] < hundred < 0.2 * ten < 0.2 * 0.2 * one


def test_it_is_the_elbo_of_pyro(prior: FactorAnalysis) -> None:
    model, guide = _network(prior), _guide(Reverse(prior))
    data = torch.rand(4, 100), torch.arange(4)
    losses = []
    for objective in (ELBO(), Trace_ELBO()):
        pyro.set_rng_seed(1)
        losses.append(objective.loss(model, guide, *data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


# The network.


def _network(prior: Any = None, **options: Any) -> BayesianConvNet:
    return BayesianConvNet(
        10, channels=(KERNELS,), kernel_sizes=(5,), priors=[prior], **options
    ).double()


def test_logits_of_many_draws_are_those_of_each(float64: torch.dtype) -> None:
    model = BayesianConvNet(12, 2, 10, (3, 4), (5, 3)).double()
    x = torch.rand(5, 288)
    w1, w2 = torch.randn(7, 1, 6, 25), torch.randn(2, 12, 9)
    logits = model.logits(x, [w1, w2])
    assert logits.shape == (7, 2, 5, 10)
    for i in range(7):
        for j in range(2):
            h = x.reshape(5, 2, 12, 12)
            for w in (w1[i, 0].reshape(3, 2, 5, 5), w2[j].reshape(4, 3, 3, 3)):
                h = max_pool2d(leaky_relu(conv2d(h, w)), 2)
            torch.testing.assert_close(logits[i, j], model.head(h.flatten(1)))


def test_minibatches_average_to_the_whole(prior: FactorAnalysis) -> None:
    model, guide = _network(prior, num_data=12), _guide(Reverse(prior))
    x, y = torch.rand(12, 100), torch.arange(12) % 10

    def loss(rows: slice) -> float:
        pyro.set_rng_seed(1)  # the same kernels
        return ELBO().loss(model, guide, x[rows], y[rows])

    parts = [loss(slice(start, start + 4)) for start in (0, 4, 8)]
    assert sum(parts) / 3 == pytest.approx(loss(slice(None)), rel=1e-12)


def test_gradients_reach_all_but_a_frozen_prior() -> None:
    prior = VAE(9, 2, (8,), "gaussian", noise="network").requires_grad_(False).eval()
    encoder = KernelEncoder(9, 2, (8,))
    model = BayesianConvNet(8, channels=(2, 3), kernel_sizes=(3, 2), priors=[prior, None])
    start = [torch.randn(2, 9), torch.randn(6, 4)]
    guide = KernelPosterior(start, [encoder.reverse, None])
    x, y = torch.rand(4, 64), torch.arange(4)
    ELBO(num_particles=3)(model, guide)(x, y).backward()
    trained = [p for p in [*model.parameters(), *guide.parameters()] if p.requires_grad]
    assert len(trained) == 2 + 4 + 4  # head, Normals, encoder
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None for p in prior.parameters())


def test_a_trained_prior_is_used_and_not_owned() -> None:
    prior = VAE(9, 2, (8,), "gaussian", noise="network")
    ELBO().loss(prior, KernelEncoder(9, 2, (8,)), torch.randn(5, 9))
    model = BayesianConvNet(8, channels=(2,), kernel_sizes=(3,), priors=[prior])
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"]
    model.double()
    assert model(torch.rand(4, 64), torch.arange(4)).shape == (4,)
    assert {p.dtype for p in prior.parameters()} == {torch.float64}


def test_classes_are_drawn_where_they_are_left_out() -> None:
    model = BayesianConvNet(8, channels=(2,), kernel_sizes=(3,))
    classes = model(torch.rand(50, 64))
    assert classes.shape == (50,)
    assert classes.min() >= 0
    assert classes.max() < 10


def test_densities_are_wide_under_autocast() -> None:
    model = BayesianConvNet(8, channels=(2,), kernel_sizes=(3,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.logits(torch.rand(4, 64), [torch.randn(2, 9)]).dtype == torch.float32


# The benchmark.


def test_rescaled_vae_is_that_of_rescaled_kernels(float64: torch.dtype) -> None:
    vae, encoder = VAE(9, 2, (8,), "gaussian"), KernelEncoder(9, 2, (8,))
    nn.init.normal_(vae.decoder.bias)
    z, x, scale = torch.randn(5, 2), torch.randn(5, 9), torch.tensor(0.03)
    before, code = vae.decode(z).log_prob(x).detach(), encoder.reverse(x).mean
    rescale(vae, encoder, scale)
    torch.testing.assert_close(vae.decode(z).log_prob(scale * x), before - 9 * scale.log())
    torch.testing.assert_close(encoder.reverse(scale * x).mean, code)


@pytest.mark.parametrize("prior", PRIORS)
def test_benchmark_trains_and_judges_a_network(prior: str) -> None:
    clothes = fashion_mnist(binarization=None)
    outcomes = {}
    with pyro.settings.context(module_local_params=True):
        learned = [learn(torch.randn(30, k**2), steps=2) for k in SIZES]
        for start in STARTS:
            outcome = run(clothes, learned, (prior, start, 10), seed=0, steps=2)
            outcomes[key(prior, start, 10, 0, 2)] = outcome
    assert all(0 <= o["accuracy"] <= 1 and o["log p"] < 0 for o in outcomes.values())
    assert all(("looseness" in o) == (prior == "learned") for o in outcomes.values())
    assert markdown(outcomes, [10], 1, 2).count(f"| {prior}, Xavier |") == len(outcome)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: BayesianConvNet(0), r"width: expected an integer >= 1, got 0"),
    (lambda: BayesianConvNet(8, channels=(0,)), r"channels: expected an integer >= 1, got 0"),
    (lambda: BayesianConvNet(channels=(3,)), r"kernel_sizes: expected one for each of 1 layers"),
    (lambda: BayesianConvNet(priors=[None]), r"priors: expected one for each of 2 layers, got 1"),
    (lambda: BayesianConvNet(12), r"width: expected pixels left, got none"),
    (lambda: BayesianConvNet(prior_scale=0.0), r"prior_scale: expected a number above 0"),
    (
        lambda: BayesianConvNet(priors=[VAE(9, 2), None]),
        r"priors: expected a model of 49 features with one latent site, got 9 features",
    ),
    (
        lambda: BayesianConvNet(priors=[VAE(49, (3, 2)), None]),
        r"got 49 features and latent_features=\{'z1': 3, 'z2': 2\}",
    ),
    (lambda: KernelPosterior([]), r"start: expected matrices \(kernels, k \* k\), got shapes \[\]"),
    (lambda: KernelPosterior([torch.zeros(4)]), r"start: .* got shapes \[\(4,\)\]"),
    (
        lambda: KernelPosterior([torch.zeros(4, 9)], [None, None]),
        r"reverse: expected one for each of 1 layers, got 2",
    ),
    (
        lambda: KernelPosterior([torch.zeros(4, 9)], start_scale=0.0),
        r"start_scale: expected a number above 0, got 0.0",
    ),
    (lambda: KernelEncoder(0), r"in_features: expected an integer >= 1, got 0"),
    (lambda: KernelEncoder(latent_features=0), r"latent_features: expected an integer >= 1"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.rand(4, 63),
            torch.zeros(4),
            r"x: expected shape \(batch, 64\), got shape \(4, 63\)",
        ),
        (torch.rand(4, 64), torch.zeros(4, 1), r"y: expected shape \(4,\), got shape \(4, 1\)"),
    ],
)
def test_wrong_data(x: Tensor, y: Tensor, message: str) -> None:
    model = BayesianConvNet(8, channels=(2,), kernel_sizes=(3,))
    with pytest.raises(DataError, match=message):
        model(x, y)
