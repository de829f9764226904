"""Likelihoods of the VAE, one by one and mixed, and its prior."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer import SVI
from torch import Tensor, nn
from vae_parts import LearnedNormal, mixed

from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Columns,
    ConditionalFlow,
    GaussianLikelihood,
    Likelihood,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.distributions.likelihoods import LIKELIHOODS, as_likelihood
from pyro_lvm.errors import ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO, IWAE

THETA = [0.5, 3.0]
SIGMA = [0.5, 2.0]


def gaussian() -> Likelihood:
    likelihood = GaussianLikelihood(2)
    likelihood.noise_scale = torch.tensor(SIGMA)
    return likelihood


def negative_binomial() -> Likelihood:
    likelihood = NegativeBinomialLikelihood(2)
    likelihood.inverse_dispersion = torch.tensor(THETA)
    return likelihood


# Densities, written out.


def _log_bernoulli(x: Tensor, output: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-output))
    return torch.log(torch.where(x == 1, p, 1 - p))


def _log_normal_of_feature(x: Tensor, output: Tensor) -> Tensor:
    return _log_normal(x, output, torch.tensor(SIGMA))


def _log_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    density = torch.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * (2 * torch.pi) ** 0.5)
    return density.log()


def _log_normal_of_network(x: Tensor, output: Tensor) -> Tensor:
    loc, raw = output[..., :2], output[..., 2:]
    return _log_normal(x, loc, torch.log(1 + raw.exp()) + 1e-6)


def _log_poisson(x: Tensor, output: Tensor) -> Tensor:
    rate = output.exp() + 1e-6
    return x * rate.log() - rate - torch.lgamma(x + 1)


def _log_negative_binomial(x: Tensor, output: Tensor) -> Tensor:
    mu, theta = output.exp(), torch.tensor(THETA)
    choices = torch.lgamma(x + theta) - torch.lgamma(x + 1) - torch.lgamma(theta)
    return choices + theta * (theta / (theta + mu)).log() + x * (mu / (theta + mu)).log()


def _log_categorical(x: Tensor, output: Tensor) -> Tensor:
    logits = output.reshape(*output.shape[:-1], 2, 3)
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.where(x == 0, p[..., 0], torch.where(x == 1, p[..., 1], p[..., 2])).log()


EXACT: dict[str, tuple[Callable[[], Likelihood], Callable[..., Tensor], float]] = {
    "bernoulli": (partial(BernoulliLikelihood, 2), _log_bernoulli, 1.0),
    "categorical": (partial(CategoricalLikelihood, 2, 3), _log_categorical, 2.0),
    "gaussian": (gaussian, _log_normal_of_feature, 3.0),
    "gaussian-network": (
        partial(GaussianLikelihood, 2, "network"),
        _log_normal_of_network,
        3.0,
    ),
    "negative_binomial": (negative_binomial, _log_negative_binomial, 9.0),
    "poisson": (partial(PoissonLikelihood, 2), _log_poisson, 9.0),
}
every_likelihood = pytest.mark.parametrize("name", EXACT)
DISCRETE = ["bernoulli", "categorical", "negative_binomial", "poisson"]


@every_likelihood
def test_log_probabilities(name: str, float64: torch.dtype) -> None:
    make, exact, largest = EXACT[name]
    likelihood = make()
    output = torch.randn(4, 5, likelihood.num_outputs)
    x = (largest * torch.rand(5, 2)).round()
    found = likelihood(output).log_prob(x)
    torch.testing.assert_close(found, exact(x, output), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_mean_and_variance_are_those_of_the_probabilities(name: str, float64: torch.dtype) -> None:
    """Summed over all values that have any probability."""
    likelihood = EXACT[name][0]()
    row = likelihood(torch.randn(likelihood.num_outputs))
    top = {"bernoulli": 1, "categorical": 2}.get(name, 400)
    x = torch.arange(top + 1.0)[:, None]
    p = row.log_prob(x.expand(-1, 2)).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(2), rtol=0, atol=1e-10)
    mean = (p * x).sum(0)
    torch.testing.assert_close(row.mean, mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(row.variance, (p * (x - mean) ** 2).sum(0), rtol=0, atol=1e-10)


def test_negative_binomial_has_the_variance_of_single_cell_models(float64: torch.dtype) -> None:
    output = torch.randn(5, 2)
    counts, mu = negative_binomial()(output), output.exp()
    torch.testing.assert_close(counts.mean, mu)
    torch.testing.assert_close(counts.variance, mu + mu**2 / torch.tensor(THETA))


def test_a_rate_that_underflows_has_a_gradient() -> None:
    """exp(-200) is 0 in float32, and 0 log 0 has none."""
    output = torch.full((1, 2), -200.0, requires_grad=True)
    for likelihood in (PoissonLikelihood(2), NegativeBinomialLikelihood(2)):
        (slope,) = torch.autograd.grad(likelihood(output).log_prob(torch.zeros(1, 2)).sum(), output)
        assert slope.isfinite().all()


@every_likelihood
def test_draws_are_floating_point(name: str) -> None:
    likelihood = EXACT[name][0]()
    drawn = likelihood(torch.zeros(3, likelihood.num_outputs)).sample()
    assert drawn.is_floating_point()
    assert drawn.shape == (3, 2)


@pytest.mark.parametrize("kind", [Tensor.byte, Tensor.int, Tensor.long, Tensor.half, Tensor.double])
def test_class_numbers_of_any_dtype(kind: Callable[[Tensor], Tensor]) -> None:
    model, guide = (
        VAE(2, 1, (4,), CategoricalLikelihood(2, 3)),
        AmortizedNormal(in_features=2, latent_features=1),
    )
    x = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    bounds = []
    for data in (x, kind(x)):
        pyro.set_rng_seed(0)
        bounds.append(ELBO().bound(model, guide, data))
    assert torch.equal(*bounds)


# Mixed.


def test_mixed_is_its_parts_side_by_side(float64: torch.dtype) -> None:
    likelihood = mixed()
    output = torch.randn(7, 5, likelihood.num_outputs)
    x = torch.tensor([-0.3, 1.7, 4.0, 2.0, 1.0, 0.0]).expand(5, 6)
    row = likelihood(output)
    assert row.batch_shape == (7, 5, 6)
    outputs, columns = output.split([2, 1, 3, 2], -1), x.split([2, 1, 1, 2], -1)
    alone = [p(o).log_prob(c) for p, o, c in zip(likelihood.parts, outputs, columns, strict=True)]
    torch.testing.assert_close(row.log_prob(x), torch.cat(alone, -1))
    torch.testing.assert_close(row.to_event(1).log_prob(x), torch.cat(alone, -1).sum(-1))
    assert row.sample((3,)).shape == (3, 7, 5, 6)
    torch.testing.assert_close(row.expand((2, 7, 5, 6)).log_prob(x)[1], row.log_prob(x))
    for moment in ("mean", "variance"):
        parts = [getattr(p(o), moment) for p, o in zip(likelihood.parts, outputs, strict=True)]
        torch.testing.assert_close(getattr(row, moment), torch.cat(parts, -1))


@pytest.mark.parametrize(
    "make", [mixed, lambda: MixedLikelihood([gaussian(), GaussianLikelihood(4, "network")])]
)
def test_single_columns_can_be_missing(
    make: Callable[[], Likelihood], float64: torch.dtype
) -> None:
    likelihood = make()
    output = torch.randn(3, likelihood.num_outputs, requires_grad=True)
    row = likelihood(output)
    x = row.sample()
    observed = torch.rand(3, 6) < 0.5
    expected = torch.where(observed, row.log_prob(x), 0.0).sum(-1)
    holes = x.where(observed, torch.nan)
    masked = masked_log_prob(row.mask(observed).to_event(1), holes, None, is_observed=True)
    torch.testing.assert_close(masked, expected)
    found, exact = (
        torch.autograd.grad(v.sum(), output, retain_graph=True)[0] for v in (masked, expected)
    )
    torch.testing.assert_close(found, exact)


def test_columns_broadcast_to_the_left() -> None:
    parts = [dist.Normal(torch.zeros(4, 1, 2), 1.0), dist.Poisson(torch.ones(5, 1))]
    row = Columns(parts)
    assert row.batch_shape == (4, 5, 3)
    assert row.log_prob(torch.zeros(5, 3)).shape == (4, 5, 3)


def test_parts_of_a_mixture_keep_their_own_parameters_in_the_store() -> None:
    likelihood = MixedLikelihood([GaussianLikelihood(2), GaussianLikelihood(3)])
    model, guide = VAE(5, 2, (4,), likelihood), AmortizedNormal(in_features=5, latent_features=2)
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ELBO()).step(torch.randn(6, 5))
    scales = {n: p for n, p in pyro.get_param_store().items() if n.endswith("noise_scale")}
    assert [len(p) for p in scales.values()] == [2, 3]
    assert all(bool((p != 1).all()) for p in scales.values())


# Inside the VAE.

OUTSIDE: list[tuple[Any, float]] = [
    ("bernoulli", 0.5),
    ("bernoulli", 2.0),
    ("poisson", -1.0),
    ("poisson", 0.5),
    ("negative_binomial", -1.0),
    ("negative_binomial", 1.5),
    (CategoricalLikelihood(6, 4), 4.0),
    (CategoricalLikelihood(6, 4), -1.0),
    (CategoricalLikelihood(6, 4), 0.5),
]


def programs(likelihood: Any, **settings: Any) -> tuple[VAE, AmortizedNormal]:
    model = VAE(6, 2, (16,), likelihood, **settings)
    return model, AmortizedNormal(in_features=6, latent_features=2, hidden=(16,))


@pytest.mark.parametrize(("likelihood", "wrong"), OUTSIDE)
def test_data_that_a_likelihood_cannot_have(likelihood: Any, wrong: float) -> None:
    x = torch.zeros(3, 6)
    x[1, 2] = wrong
    with explained(PyroLVMError, "site 'x'", "a value that", "within the support", "coding"):
        ELBO().loss(*programs(likelihood), x)


@pytest.mark.parametrize(
    ("column", "wrong", "columns"),
    [(2, 0.5, "2 to 2"), (2, -1.0, "2 to 2"), (3, 3.0, "3 to 3"), (4, 2.0, "4 to 5")],
)
def test_data_that_a_column_cannot_have(column: int, wrong: float, columns: str) -> None:
    x = torch.zeros(3, 6)
    x[1, column] = wrong
    found = f"in columns {columns}: Expected value argument"
    with explained(PyroLVMError, "site 'x'", "a value that", found, "Check the data's coding"):
        ELBO().loss(*programs(mixed()), x)


def test_missing_entries_of_a_row_are_left_out_of_the_bound() -> None:
    """NaN in half of the columns: the bound of the others, with finite gradients."""
    likelihood = mixed()
    observed = torch.tensor([True, False, False, True, False, True])

    def model(x: Tensor, columns: Tensor) -> None:
        pyro.module("likelihood", likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            row = likelihood(z).mask(columns).to_event(1)
            pyro.sample("x", row, obs=x)

    def guide(x: Tensor, columns: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(8))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = likelihood(torch.zeros(3, 8)).sample()
    pyro.set_rng_seed(1)
    loss = IWAE(3).loss_and_grads(model, guide, x.where(observed, torch.nan), observed)
    assert pyro.param("loc").grad.isfinite().all()
    pyro.set_rng_seed(1)
    assert loss == IWAE(3).loss(model, guide, x, observed)


TRAINED: dict[str, Callable[[], Any]] = {
    **{name: partial(str, name) for name in LIKELIHOODS},
    "gaussian-network": partial(GaussianLikelihood, 6, "network"),
    "categorical": partial(CategoricalLikelihood, 6, 4),
    "mixed": mixed,
}


def trained(
    model: VAE, guide: AmortizedNormal, x: Tensor, steps: int = 150
) -> tuple[Tensor, Tensor]:
    """Bounds of the data, nats each, before and after training."""
    objective = IWAE(5)
    with pyro.settings.context(module_local_params=True):
        loss = objective(model, guide)
        before = objective.bound(model, guide, x)
        adam = torch.optim.Adam(loss.parameters(), 0.02)
        for _ in range(steps):
            adam.zero_grad()
            loss(x).backward()
            adam.step()
        return before, objective.bound(model, guide, x)


@pytest.mark.parametrize("name", TRAINED)
def test_training_on_its_own_draws_raises_the_bound(name: str) -> None:
    truth, _ = programs(TRAINED[name]())
    with torch.no_grad():
        truth.decoder.bias.normal_()
        truth.decoder.layers[-1].weight.mul_(2.0)
        x = truth(size=200)
    before, after = trained(*programs(TRAINED[name]()), x)
    gain = after - before
    assert gain.mean() > 5 * gain.std() / len(x) ** 0.5


@pytest.mark.parametrize("name", TRAINED)
def test_start_at_the_mean_of_the_data(name: str) -> None:
    mean = torch.tensor([0.5, 0.2, 0.7, 1.0, 0.3, 0.6])
    likelihood = TRAINED[name]()
    model = VAE(6, 2, (), likelihood, data_mean=mean)
    start = model.decode(torch.zeros(2)).mean
    if name == "categorical":
        mean = torch.full((6,), 1.5)  # four classes alike
    torch.testing.assert_close(
        start, mean.clamp(max=0.999) if name == "bernoulli" else mean, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_counts_that_are_all_zero_have_a_start(likelihood: str) -> None:
    model = VAE(6, 2, (), likelihood, data_mean=torch.zeros(6))
    assert model.decode(torch.zeros(2)).mean.isfinite().all()


WRONG: list[tuple[Callable[[], Any], tuple[str, str, str, str]]] = [
    (
        lambda: as_likelihood("beta", 6),
        ("likelihood", "'negative_binomial', 'poisson'", "'beta'", "likelihood='bernoulli'"),
    ),
    (
        lambda: VAE(6, 2, likelihood=PoissonLikelihood(5)),
        ("likelihood", "one of 6 columns", "a PoissonLikelihood of 5", "as many columns"),
    ),
    (lambda: MixedLikelihood([]), ("parts", "at least one", "none", "GaussianLikelihood")),
    (lambda: CategoricalLikelihood(6, 0), ("num_classes", "integer >= 1", "0", "num_classes")),
    (lambda: GaussianLikelihood(6, "none"), ("noise", "'feature'", "'none'", "noise='feature'")),
    (lambda: PoissonLikelihood(0), ("features", "an integer >= 1", "0", "Check features")),
]


@pytest.mark.parametrize(("make", "texts"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], texts: tuple[str, str, str, str]) -> None:
    with explained(ProgramError, *texts):
        make()


# The prior.


def test_prior_of_the_top_layer() -> None:
    prior = LearnedNormal(2)
    prior.loc.data.fill_(3.0)
    model = VAE(6, (4, 2), (8,), prior=prior)
    sites = pyro.poutine.trace(model).get_trace(size=400).nodes
    assert (sites["z2"]["value"].mean(0) - 3.0).abs().max() < 5 / 400**0.5
    assert sites["z2"]["fn"].batch_shape == (400,)
    assert VAE(6, 2).prior is None


@pytest.mark.parametrize("make", [LearnedNormal, ConditionalFlow])
def test_a_prior_is_trained(make: Callable[[int], nn.Module]) -> None:
    """It follows the latents of the data: they are likelier under it than under a new one."""
    model, guide = programs("gaussian", prior=make(2))
    x = 2 + torch.randn(200, 2) @ torch.randn(2, 6)
    trained(model, guide, x)
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        z = guide(x)["z"]
        gain = model.prior().log_prob(z) - make(2)().log_prob(z)
    assert gain.mean() > 5 * gain.std() / len(x) ** 0.5


class OfShape(nn.Module):
    def __init__(self, *shape: int, event_dim: int = 1) -> None:
        super().__init__()
        self.shape, self.event_dim = shape, event_dim

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(torch.zeros(self.shape), 1.0).to_event(self.event_dim)


@pytest.mark.parametrize(
    ("prior", "found"),
    [
        (OfShape(3), "() and (3,)"),
        (OfShape(5, 2), "(5,) and (2,)"),
        (OfShape(2, event_dim=0), "(2,) and ()"),
    ],
)
def test_prior_of_another_shape(prior: nn.Module, found: str) -> None:
    expected = "batch shape () and event shape (2,)"
    with explained(ProgramError, "prior", expected, found, ".to_event(1)"):
        VAE(6, 2, prior=prior)(size=3)
