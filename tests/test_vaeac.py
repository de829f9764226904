"""VAEAC: any entries given any others, against quadrature and exact Gaussian conditionals."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from moved import moved
from torch import Tensor, nn

import pyro_lvm
from pyro_lvm.densities import log_prob
from pyro_lvm.diagnostics import impute, log_evidence
from pyro_lvm.distributions import CategoricalLikelihood, GaussianLikelihood, PartlyKnown
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import ConditioningGuide
from pyro_lvm.missing import RandomMasks, Schema, TableFeatures, half, hide, mcar
from pyro_lvm.models import VAEAC
from pyro_lvm.nn import ConvEncoder, RowReader, UNet
from pyro_lvm.objectives import ELBO, IWAE, MIWAE, TVO, Renyi
from pyro_lvm.tracing import Recorder, Site, record

pytestmark = pytest.mark.usefixtures("float64")

NAN = torch.nan
X = torch.tensor([[0.5, 1.0, -1.0], [NAN, 1.5, 0.3], [0.2, -0.4, NAN], [NAN, NAN, NAN]])
OBSERVED = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=torch.bool)
PREDICTED = ~OBSERVED & ~X.isnan()


def pair(latent_features: int = 2, **options: Any) -> tuple[VAEAC, ConditioningGuide]:
    """A model of three columns and its guide, far from their start."""
    sizes = {"latent_features": latent_features, "width": 8, "depth": 2}
    model = VAEAC(3, **{"hyperprior": None, **sizes, **options})
    return moved(model), moved(ConditioningGuide(in_features=3, **sizes))


def sites(program: Callable[..., Any], *args: Any, **given: Tensor) -> dict[str, Site]:
    return record(program, args, {}, Recorder(None, 10, given)).sites


@torch.no_grad()
def by_quadrature(model: VAEAC) -> Tensor:
    """Exact log-probability of what is predicted of ``X``."""
    grid = torch.linspace(-9, 9, 2001)
    prior = sites(model, X, OBSERVED)["z"].fn
    z = prior.mean + grid[:, None, None] * prior.stddev  # (points, B, 1)
    row = sites(model, X, OBSERVED, z=z)["x"]
    log_joint = log_prob(row) + dist.Normal(0.0, 1.0).log_prob(grid)[:, None]
    return torch.logsumexp(log_joint, 0) + (grid[1] - grid[0]).log()


@torch.no_grad()
def test_evidence_is_that_of_what_is_predicted_given_what_is_observed() -> None:
    model, _ = pair(latent_features=1)
    exact = by_quadrature(model)
    assert exact[3] == pytest.approx(0.0, abs=1e-9)  # nothing to predict
    evidence = log_evidence(model, model.prior_guide, X, OBSERVED, num_samples=40_000)
    error = (evidence.value - exact).abs()
    assert (error < 4 * evidence.standard_error + 1e-6).all()
    assert (evidence.standard_error < 0.05).all()


@torch.no_grad()
@pytest.mark.parametrize("proposal", ["prior network", "rough"])
def test_missing_entries_are_drawn_from_the_prior_network(proposal: str) -> None:
    """Whatever the guide: nothing is predicted, so its draws are reweighted to the prior's."""
    model, _ = pair()
    incomplete, count = hide(X, OBSERVED & ~X.isnan()), 20_000
    network = sites(model, incomplete)["z"].fn.base_dist

    def rough(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(network.mean + 0.1, 1.3 * network.stddev).to_event(1))

    guide = model.prior_guide if proposal == "prior network" else rough
    imputed = impute(model, guide, incomplete, num_samples=count, num_particles=count)
    assert torch.equal(imputed.observed, ~incomplete.isnan())
    assert torch.equal(
        imputed.values[:, imputed.observed], incomplete[imputed.observed].expand(count, -1)
    )
    direct = sites(model, incomplete, z=network.sample((count,)))["x"].fn.base_dist.sample()
    missing = incomplete.isnan()
    size = 1 / (1 / count + 1 / imputed.effective_sample_size.unsqueeze(1).expand_as(X)[missing])
    error = direct.std(0)[missing] * (1 / size + 1 / count).sqrt()
    assert ((imputed.values.mean(0) - direct.mean(0))[missing].abs() < 4 * error).all()
    assert (error < 0.1 * direct.std(0)[missing]).all()


@torch.no_grad()
def test_most_probable_values_are_the_means_of_the_prior_network() -> None:
    model, _ = pair(latent_features=1)
    incomplete = hide(X, OBSERVED & ~X.isnan())
    imputed = impute(model, model.prior_guide, incomplete, num_particles=50_000, method="mean")
    prior = sites(model, incomplete)["z"].fn
    z = prior.mean + torch.linspace(-6, 6, 1001)[:, None, None] * prior.stddev
    weight = torch.softmax(prior.log_prob(z), 0).unsqueeze(-1)
    means = sites(model, incomplete, z=z)["x"].fn.mean
    exact = (weight * means).sum(0)
    error = (weight * (means - exact).square()).sum(0).sqrt() / 50_000**0.5
    assert ((imputed.values[0] - exact).abs() <= 4 * error + 1e-6).all()


def test_the_prior_sees_what_is_observed_and_nothing_else() -> None:
    model, guide = pair()
    other = torch.where(OBSERVED, X, X + 1.0)
    for program, sees in ((model, False), (guide, True)):
        first, second = (sites(program, x, OBSERVED)["z"].fn.mean for x in (X, other))
        assert torch.equal(first, second) != sees
    z = torch.randn(4, 2)
    means = [
        sites(model, x, OBSERVED, z=z)["x"].fn.base_dist.base_dist.base_dist.mean
        for x in (X, other)
    ]
    assert torch.equal(*means)
    again = sites(model, X, OBSERVED | X.isnan(), z=z)["x"]  # NaN is never observed
    torch.testing.assert_close(log_prob(again), log_prob(sites(model, X, OBSERVED, z=z)["x"]))


def test_only_predicted_entries_are_scored() -> None:
    model, _ = pair()
    row = sites(model, X, OBSERVED)["x"]
    normal = row.fn.base_dist.base_dist.base_dist
    by_hand = torch.where(PREDICTED, normal.log_prob(X.nan_to_num(0.0)), 0.0).sum(-1)
    torch.testing.assert_close(log_prob(row), by_hand)
    assert torch.equal(log_prob(row)[3:], torch.zeros(1))


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(),
        ELBO(3, gradient="stl"),
        IWAE(4),
        IWAE(4, gradient="dreg"),
        MIWAE(4, num_groups=2),
        Renyi(4, alpha=0.5),
        TVO(4),
    ],
    ids=repr,
)
def test_every_objective_has_clean_gradients_beside_nan(objective: Any) -> None:
    model, guide = pair()
    loss = objective.differentiable_loss(model, guide, X, OBSERVED)
    parameters = [*model.parameters(), *guide.parameters()]
    for gradient in torch.autograd.grad(loss, parameters):
        assert gradient.isfinite().all()
        assert gradient.any()
    assert objective.bound(model, guide, X, OBSERVED).shape == (4,)


@pytest.mark.parametrize("num_particles", [1, 5])
def test_networks_run_once_a_datum(num_particles: int) -> None:
    model, guide = pair()
    rows: list[tuple[int, ...]] = []
    skips = [model.decoder.head_skip, *model.decoder.skips]
    for part in (model.encoder.entry, guide.encoding.encoder.entry, *skips):
        part.register_forward_hook(lambda _, x, y: rows.append(tuple(y.shape[:-1])))
    IWAE(num_particles, max_plate_nesting=1).loss_and_grads(model, guide, X, OBSERVED)
    assert rows == [(4,)] * (2 + len(skips))


def test_nothing_to_predict_is_worth_minus_the_divergence() -> None:
    model, guide = pair()
    for x in (X, torch.full((2, 3), NAN)):
        posterior = sites(guide, x)["z"].fn
        divergence = torch.distributions.kl_divergence(posterior, sites(model, x)["z"].fn)
        bounds = ELBO(20_000).log_weights(model, guide, x)
        error = bounds.std(0) / 20_000**0.5
        assert ((bounds.mean(0) + divergence).abs() < 4 * error).all()
    assert torch.equal(ELBO().bound(model, model.prior_guide, X), torch.zeros(4))


def test_hyperprior_is_never_above_zero() -> None:
    model, _ = pair(hyperprior=(3.0, 0.5))
    nodes = sites(model, X, OBSERVED)
    loc, scale = nodes["z"].fn.mean, nodes["z"].fn.stddev
    by_hand = -(loc**2).sum(-1) / 18.0 + 0.5 * (scale.log() - scale).sum(-1)
    torch.testing.assert_close(log_prob(nodes["hyperprior"]), by_hand)
    assert (by_hand < 0).all()
    assert VAEAC(3).hyperprior == (1e4, 1e-4)
    assert "hyperprior" not in sites(pair()[0], X, OBSERVED)


# Tables, pictures.


def table() -> pd.DataFrame:
    frame = pd.DataFrame({"height": [1.6, None, 1.8, 1.7], "visits": [3, 1, 0, 5]})
    frame["place"] = pd.Categorical(["sea", "town", None, "sea"])
    frame["member"] = pd.array([True, None, False, True], dtype="boolean")
    return frame


def test_a_mixed_table_is_trained_and_filled() -> None:
    frame = table()
    schema = Schema.of(frame)
    x, features = schema.encode(frame), TableFeatures(schema.columns)
    options: Any = {"latent_features": 2, "width": 8, "depth": 1, "features": features}
    model = VAEAC(len(schema), likelihood=schema.likelihood(), **options)
    guide = ConditioningGuide(in_features=len(schema), **options)
    transform = RandomMasks(mcar, rate=0.5)
    pyro_lvm.fit(model, guide, x, IWAE(3), transform=transform, allow_nan=True, max_steps=5)
    for method in ("sir", "mean"):
        imputed = impute(model, model.prior_guide, x, method=method)
        filled = schema.fill(frame, imputed.values[0])
        assert not filled.isna().any().any()
        assert filled["place"].dtype == frame["place"].dtype
        pd.testing.assert_series_equal(filled["visits"], frame["visits"])


def test_classes_are_indicators_for_the_networks() -> None:
    columns = Schema.of(table()).columns
    read, there = RowReader(4, TableFeatures(columns))(torch.tensor([[0.1, NAN, 1.0, 0.0]]))
    torch.testing.assert_close(read, torch.tensor([[0.1, 0.0, 0.0, 1.0, 0.0]]))
    torch.testing.assert_close(there, torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]]))


@pytest.mark.parametrize("make", [UNet, ConvEncoder])
def test_pictures(make: Callable[..., Any]) -> None:
    prior = UNet(5, in_channels=2, channels=(3, 4, 5))
    model = VAEAC(25, 3, "bernoulli", encoder=prior)
    encoder = make(5, in_channels=3, channels=(3, 4))
    guide = ConditioningGuide(
        encoder, in_features=25, latent_features=3, encoder_features=encoder.out_features
    )
    x = (torch.rand(6, 25) < 0.5).to(torch.float64)
    _, observed = RandomMasks(half, shape=(5, 5))(x)
    loss = IWAE(3, gradient="dreg").differentiable_loss(model, guide, x, observed)
    for gradient in torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()]):
        assert gradient.isfinite().all()
    imputed = impute(model, model.prior_guide, hide(x, observed), num_samples=3, num_particles=20)
    assert imputed.values.unique().tolist() == [0.0, 1.0]


def test_noise_of_pictures_has_channels_of_its_own() -> None:
    model = VAEAC(2 * 25, 3, "gaussian", encoder=UNet(5, in_channels=4, channels=(3,)))
    assert model.decoder.head.out_channels == 4  # two means, two scales
    assert model(torch.randn(6, 50)).shape == (6, 50)


# Masks and other arguments.


def test_masks_are_drawn_by_the_generator_and_respect_nan() -> None:
    draw = RandomMasks(mcar, rate=0.3)
    masks = [draw(X, torch.Generator().manual_seed(seed))[1] for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not masks[0][X.isnan()].any()
    state = torch.get_rng_state()
    draw(X, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(draw) == "RandomMasks(mcar, rate=0.3)"
    assert repr(RandomMasks(half, shape=[2, 2])) == "RandomMasks(half, shape=(2, 2))"


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.ones(4, 2) > 0, "torch.bool of shape (4, 2)"),
        (torch.ones(3, 3) > 0, "torch.bool of shape (3, 3)"),
        (torch.ones(4, 3, dtype=torch.float32), "torch.float32 of shape (4, 3)"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_mask_of_another_kind(mask: Tensor, found: str, which: int) -> None:
    expected = "a bool tensor of shape (4, 3), True = observed"
    with explained(DataError, "observed", expected, found, "pyro_lvm.missing.mcar(x)"):
        pair()[which](X, mask)


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: VAEAC(0), ProgramError, "in_features: expected an integer >= 1, got 0"),
    (lambda: VAEAC(3, 0), ProgramError, "latent_features: expected .* got 0"),
    (lambda: VAEAC(3, width=0), ProgramError, "width: expected .* got 0"),
    (lambda: VAEAC(3, depth=0), ProgramError, "depth: expected .* got 0"),
    (lambda: VAEAC(3, likelihood="normal"), ProgramError, "likelihood: .* got 'normal'"),
    (lambda: VAEAC(3, noise="none"), ProgramError, "noise: expected one of .* got 'none'"),
    (
        lambda: VAEAC(3, likelihood=GaussianLikelihood(4)),
        ProgramError,
        "likelihood: expected one of 3 columns, got a GaussianLikelihood of 4",
    ),
    (lambda: VAEAC(3)(torch.zeros(2, 4)), DataError, r"x: expected shape \(batch, 3\)"),
    (
        lambda: VAEAC(50, encoder=UNet(8, 2))(torch.zeros(2, 50)),
        ProgramError,
        "out_features: expected a multiple of 8 x 8, got 100",
    ),
    (
        lambda: VAEAC(9, likelihood="bernoulli", encoder=UNet(3))(torch.zeros(2, 9)),
        DataError,
        r"x: expected pictures of 1 x 3 x 3 numbers, got shape \(2, 18\)",
    ),
    (lambda: UNet(0), ProgramError, "width: expected .* got 0"),
    (lambda: UNet(8, channels=(0,)), ProgramError, "channels: expected .* got 0"),
    (lambda: ConditioningGuide(covariance="dense"), ProgramError, "covariance: .* 'dense'"),
    (lambda: ConditioningGuide(nn.Identity()), ProgramError, "encoder_features: expected a size"),
    (lambda: ConditioningGuide(encoder_features=3), ProgramError, "got 3 without an encoder"),
    (
        lambda: RandomMasks()((X, OBSERVED)),
        DataError,
        "batch of RandomMasks: expected a tensor, got a tuple",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_known_entries_are_drawn_as_they_are() -> None:
    known = torch.tensor([True, False, True])
    base = CategoricalLikelihood(3, 4)(torch.randn(5, 12))
    row = PartlyKnown(base, torch.tensor([3.0, NAN, 2.0]), known)
    assert row.batch_shape == (5, 3)
    assert row.expand((7, 5, 3)).sample().shape == (7, 5, 3)
    drawn = row.sample((100,))
    assert torch.equal(drawn[..., known], torch.tensor([3.0, 2.0]).expand(100, 5, 2))
    torch.testing.assert_close(row.mean[:, 1], base.mean[:, 1])
    assert torch.equal(row.variance[:, known], torch.zeros(5, 2))
    assert torch.equal(row.log_prob(drawn)[..., known], torch.zeros(100, 5, 2))
    torch.testing.assert_close(row.log_prob(drawn)[..., 1], base.log_prob(drawn)[..., 1])
