"""Masks at their rates, models and encoders of incomplete data, tables and their columns.

A tolerance of 1e-10 is rounding in float64; rates are held to their own standard errors.
"""

from collections.abc import Callable
from functools import partial
from math import ceil, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer import SVI
from torch import Tensor, nn

import pyro_lvm
from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    OrdinalLikelihood,
)
from pyro_lvm.errors import DataError, ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import (
    Incomplete,
    RealColumn,
    Schema,
    TableEncoder,
    TableFeatures,
    arbitrary,
    block,
    half,
    hide,
    mar,
    mcar,
    mnar,
    observed_part,
    pixel,
    rectangle,
)
from pyro_lvm.models import VAE, FactorAnalysis
from pyro_lvm.nn import MLP, ConvEncoder, SetEncoder, ZeroImputing
from pyro_lvm.objectives import ELBO, IWAE

NAN = torch.nan
Mask = Callable[..., Tensor]

# Masks.

TABLES: dict[str, Mask] = {
    "mcar": mcar,
    "mar": partial(mar, drivers=[1, 3]),
    "mnar": mnar,
    "mnar of small values": partial(mnar, slope=-1.0),
}
PICTURES: dict[str, Mask] = {
    "pixel": pixel,
    "block": partial(block, height=3, width=5),
    "half": half,
    "rectangle": rectangle,
    "arbitrary": arbitrary,
}
SHAPES = {**dict.fromkeys(TABLES, (50, 5)), **dict.fromkeys(PICTURES, (50, 2, 6, 8))}
MASKS = TABLES | PICTURES


def table(rows: int) -> Tensor:
    """Five dependent columns of different means and scales."""
    common = torch.randn(rows, 1)
    return 3 + torch.arange(1.0, 6.0) * (common + torch.randn(rows, 5))


@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize("name", TABLES)
def test_rate_of_every_column(name: str, rate: float) -> None:
    rows = 20_000
    missing = ~TABLES[name](table(rows), rate=rate)
    error = sqrt(rate * (1 - rate) / rows)
    columns = [0, 2, 4] if name == "mar" else list(range(5))
    shares = missing.float().mean(0)
    assert ((shares[columns] - rate).abs() < 4 * error).all()
    assert (shares[[c for c in range(5) if c not in columns]] == 0).all()


def rate_of_rectangles(least: float, rows: int, columns: int) -> float:
    """The expected share, by enumeration of heights and widths."""
    heights = range(ceil(least * rows), rows + 1)
    shares = []
    for height in heights:
        widths = range(ceil(round(least * rows * columns / height, 9)), columns + 1)
        shares.append(sum(height * width for width in widths) / len(widths))
    return sum(shares) / len(shares) / (rows * columns)


RECTANGLES = rate_of_rectangles(0.3, 6, 8)
RATES = {
    "pixel": 0.5,
    "block": 15 / 48,
    "half": 0.5,
    "rectangle": RECTANGLES,
    "arbitrary": (1 / 4 + 0.95 + 1 / 2) / 9 + RECTANGLES * 2 / 3,
}


@pytest.mark.parametrize("name", PICTURES)
def test_rate_of_pixels(name: str) -> None:
    missing = ~PICTURES[name](torch.zeros(20_000, 6, 8))
    shares = missing.float().mean((1, 2))
    error = float(shares.std()) / sqrt(len(shares))
    assert abs(shares.mean() - RATES[name]) < 4 * error + 1e-6
    if name in ("block", "half"):
        assert (shares == shares[0]).all()
    if name == "rectangle":
        assert (shares > 0.3 - 1e-6).all()


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_follows_its_seed_alone(name: str) -> None:
    x = torch.randn(SHAPES[name])
    state = torch.get_rng_state()
    masks = [MASKS[name](x, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert masks[0].shape == x.shape
    assert masks[0].dtype == torch.bool
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_the_same_in_any_precision(name: str, float64: torch.dtype) -> None:
    """But for entries whose probability is within rounding of their uniform number: none here."""
    x = torch.randn(SHAPES[name])
    assert torch.equal(MASKS[name](x), MASKS[name](x.float()))


@pytest.mark.parametrize("name", MASKS)
def test_what_is_missing_is_never_observed(name: str) -> None:
    x = torch.randn(SHAPES[name])
    x[::2, 0] = NAN
    assert not MASKS[name](x)[x.isnan()].any()


@pytest.mark.parametrize("name", PICTURES)
def test_channels_share_their_mask(name: str) -> None:
    observed = PICTURES[name](torch.zeros(50, 2, 6, 8))
    assert torch.equal(observed[:, 0], observed[:, 1])


def test_every_half_and_place_occurs() -> None:
    halves = half(torch.zeros(100, 4, 6)).flatten(1).int().unique(dim=0)
    assert len(halves) == 4
    places = block(torch.zeros(300, 3, 4), 2, 2).flatten(1).int().unique(dim=0)
    assert len(places) == 2 * 3


def test_missing_at_random_depends_on_drivers_alone() -> None:
    x, y = table(5000), table(5000)
    y[:, [1, 3]] = x[:, [1, 3]]
    observed = mar(x, [1, 3])
    assert torch.equal(observed, mar(y, [1, 3]))
    assert not torch.equal(observed, mar(table(5000), [1, 3]))
    for column in (0, 2, 4):
        gap = x[observed[:, column]][:, [1, 3]].mean(0) - x[~observed[:, column]][:, [1, 3]].mean(0)
        error = 2 * x[:, [1, 3]].std(0) / sqrt(len(x))
        assert (gap.abs() > 4 * error).any()


def test_missing_not_at_random_depends_on_the_value_itself() -> None:
    """Not on other columns; and its log-odds rise by the slope a standard deviation."""
    x, y = table(20_000), table(20_000)
    y[:, 2] = x[:, 2]
    assert torch.equal(mnar(x)[:, 2], mnar(y)[:, 2])
    value = (x[:, 2] - x[:, 2].mean()) / x[:, 2].std()
    missing = (~mnar(x, rate=0.5, slope=1.5))[:, 2].float()
    for low, high in [(-0.1, 0.1), (0.9, 1.1), (-1.1, -0.9)]:
        inside = (value > low) & (value < high)
        expected = torch.sigmoid(1.5 * value[inside]).mean()  # the rate 1/2 needs no intercept
        error = sqrt(expected * (1 - expected) / int(inside.sum()))
        assert abs(missing[inside].mean() - expected) < 4 * error + 0.02


@pytest.mark.parametrize("mask", [mcar, mnar, partial(mar, drivers=[0])])
@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_rates_that_are_none(mask: Mask, rate: float) -> None:
    with explained(PyroLVMError, "rate", "between 0 and 1", str(rate), "rate=0.5"):
        mask(torch.zeros(5, 3), rate=rate)


def test_data_that_a_mask_is_not_for() -> None:
    with explained(DataError, "x", "(rows, columns)", "(5,)", "x.flatten(1)"):
        mnar(torch.zeros(5))
    with explained(DataError, "x", "(B, H, W)", "(5, 64)", "unflatten"):
        half(torch.zeros(5, 64))
    with explained(PyroLVMError, "block", "within 4 x 4", "5 x 1", "fit into"):
        block(torch.zeros(5, 4, 4), 5, 1)
    with explained(PyroLVMError, "drivers", "at least one", "none", "drivers=[0]"):
        mar(torch.zeros(5, 3), [])
    with explained(DataError, "drivers", "without NaN", "[1]", "complete"):
        mar(torch.tensor([[0.0, NAN], [1.0, 2.0]]), [0, 1])


# Data and mask in one.


def test_hide() -> None:
    x, mask = torch.tensor([[1.0, NAN], [3.0, 4.0]]), torch.tensor([[True, False], [False, True]])
    hidden = hide(x, mask)
    assert torch.equal(hidden.isnan(), ~mask)
    assert torch.equal(hidden[mask], x[mask])


def test_masks_that_do_not_fit() -> None:
    x = torch.tensor([[1.0, NAN], [3.0, 4.0]])
    with explained(DataError, "mask", "shape (2, 2), True", "shape (2,)", "~x.isnan()"):
        hide(x, torch.tensor([True, False]))
    with explained(DataError, "mask", "a bool tensor", "torch.float32", "~x.isnan()"):
        hide(x, torch.ones(2, 2))
    with explained(DataError, "mask", "False wherever x is NaN", "1 NaN", "True means observed"):
        hide(x, torch.ones(2, 2, dtype=torch.bool))


# Models.


@pytest.mark.usefixtures("float64")
def test_evidence_of_what_is_observed() -> None:
    """With the exact posterior as guide, the bound is that of the marginal Gaussian."""
    model = FactorAnalysis(4, 2)
    with torch.no_grad():
        model.loading.normal_()
    x = hide(torch.randn(6, 4), mcar(torch.zeros(6, 4)))
    x[0], x[1] = NAN, torch.randn(4)

    def guide(x: Tensor) -> None:
        scaled = model.loading.T * (~x.isnan()).double().unsqueeze(-2)
        precision = torch.eye(2) + scaled @ model.loading
        loc = (precision.inverse() @ scaled @ (x - model.mean).nan_to_num(0.0)[..., None])[..., 0]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

    covariance = model.loading @ model.loading.T + torch.eye(4)
    exact = []
    for row in x:
        o = ~row.isnan()
        marginal = dist.MultivariateNormal(torch.zeros(int(o.sum())), covariance[o][:, o])
        exact.append(marginal.log_prob(row[o]) if o.any() else torch.zeros(()))
    bound = IWAE(3).bound(Incomplete(model), guide, x)
    torch.testing.assert_close(bound, torch.stack(exact).detach(), atol=1e-10, rtol=0)
    assert bound[0].abs() < 1e-12


def test_complete_data_are_scored_as_before() -> None:
    model, guide = VAE(4, 2, (8,), "gaussian"), AmortizedNormal(in_features=4, latent_features=2)
    x = torch.randn(5, 4)
    bounds = []
    for program in (model, Incomplete(model)):
        pyro.set_rng_seed(1)
        bounds.append(IWAE(3).bound(program, guide, x))
    torch.testing.assert_close(*bounds)
    assert Incomplete(model)(size=3).shape == (3, 4)


def test_training_with_svi() -> None:
    """In Pyro's store the parameters have the names of the model alone."""
    x = hide(torch.randn(20, 4), mcar(torch.zeros(20, 4)))
    model = FactorAnalysis(4, 2)
    encoder = ZeroImputing(MLP(8, None, (9,)))
    guide = AmortizedNormal(encoder, encoder_features=9, latent_features=2)
    svi = SVI(Incomplete(model), guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    before = model.loading.detach().clone()
    assert svi.step(x) > 0
    assert (model.loading != before).all()
    assert "FactorAnalysis.loading" in pyro.get_param_store()


def test_observed_part_of_masked_entries() -> None:
    """Both masks count."""
    fn = dist.Normal(torch.zeros(3), 1.0).mask(torch.tensor([True, True, False])).to_event(1)
    part = observed_part(fn, torch.tensor([True, False, True]))
    torch.testing.assert_close(
        part.log_prob(torch.ones(3)), dist.Normal(0.0, 1.0).log_prob(torch.ones(()))
    )


def test_dependent_entries_cannot_be_left_out() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), obs=x)

    with explained(ProgramError, "site 'y'", "independent", "MultivariateNormal", "to_event"):
        Incomplete(model)(torch.tensor([[0.0, NAN]]))


def test_factors_and_integers_stay() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.factor("prior", torch.zeros(len(x)))
            pyro.sample("x", dist.Poisson(torch.ones(())), obs=x)

    trace = pyro.poutine.trace(Incomplete(model)).get_trace(torch.tensor([1, 2]))
    assert trace.log_prob_sum().isfinite()


# Encoders.


def encoders() -> dict[str, nn.Module]:
    return {
        "zero": ZeroImputing(MLP(8, None, (9,))),
        "set": SetEncoder(4, hidden=(9,)),
    }


@pytest.mark.parametrize("name", encoders())
def test_unobserved_entries_change_nothing(name: str) -> None:
    """Neither the output nor a gradient, whatever stands there."""
    encoder = encoders()[name]
    x, observed = torch.randn(6, 4), mcar(torch.zeros(6, 4))
    observed[0] = False
    results = []
    for filler, *mask in [(NAN,), (0.0, observed), (-7.0, observed), (torch.inf, observed)]:
        filled = torch.where(observed, x, filler).requires_grad_()
        features = encoder(filled, *mask)
        gradients = torch.autograd.grad(features.square().sum(), [*encoder.parameters(), filled])
        results.append((features, *gradients))
    for result in results:
        assert all(bool(part.isfinite().all()) for part in result)
        assert (result[-1][~observed] == 0).all()
        torch.testing.assert_close(result, results[0], atol=0, rtol=0)


@pytest.mark.parametrize("name", ["zero", "set"])
def test_a_zero_is_not_a_hole(name: str) -> None:
    encoder = encoders()[name]
    full, hole = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[NAN, 1.0, 2.0, 3.0]])
    assert (encoder(full) - encoder(hole)).abs().max() > 1e-4


def test_set_encoder_sums_over_entries() -> None:
    """Before its last network, the features of entries add up."""
    encoder = SetEncoder(3, hidden=())
    whole = encoder(torch.tensor([[1.0, -2.0, NAN]]))
    parts = encoder(torch.tensor([[1.0, NAN, NAN], [NAN, -2.0, NAN]]))
    torch.testing.assert_close(whole[0], parts.sum(0))
    assert (encoder(torch.full((1, 3), NAN)) == 0).all()


def test_pictures_with_holes() -> None:
    encoder = ZeroImputing(ConvEncoder(8, in_channels=2, channels=(4,)))
    x = torch.randn(5, 1, 8, 8)
    assert encoder(hide(x, half(x))).shape == (5, encoder.out_features)


# Tables.


def frame() -> pd.DataFrame:
    """A column of every kind, with holes, and one row that is nothing else."""
    made = pd.DataFrame(
        {
            "height": np.array([1.7, np.nan, 1.5, 1.9, np.nan], dtype="float32"),
            "income": [1e3, 2e4, np.nan, 5e2, np.nan],
            "visits": pd.array([3, 0, None, 12, None], dtype="Int64"),
            "change": pd.array([-3, 0, 2, None, None], dtype="Int64"),
            "place": pd.Categorical(["sea", None, "town", "sea", None]),
            "grade": pd.Categorical(
                ["low", "high", None, "mid", None], categories=["low", "mid", "high"], ordered=True
            ),
            "member": pd.array([True, None, False, False, None], dtype="boolean"),
        },
        index=list("abcde"),
    )
    return made


def schema() -> Schema:
    return Schema.of(frame(), kinds={"income": "positive"})


@pytest.mark.usefixtures("float64")
def test_round_trip_of_a_frame() -> None:
    original = frame()
    x = schema().encode(original)
    assert x.shape == (5, 7)
    assert torch.equal(x.isnan(), torch.tensor(original.isna().to_numpy()))
    pd.testing.assert_frame_equal(schema().decode(x, original.index), original)


def test_standardised_by_observed_cells() -> None:
    x = schema().encode(frame())
    torch.testing.assert_close(x[:, [0, 1, 3]].nanmean(0), torch.zeros(3), atol=1e-6, rtol=0)
    squares = x[:, [0, 1, 3]].square().nanmean(0)
    torch.testing.assert_close(squares, torch.ones(3))
    income = schema().columns[1]
    assert isinstance(income, RealColumn)
    assert income.mean == pytest.approx(np.log([1e3, 2e4, 5e2]).mean())
    assert x[:, 2].tolist()[:2] == [3.0, 0.0]
    assert x[:, 5].tolist()[:2] == [0.0, 2.0]


def test_filling_leaves_observed_cells_bit_for_bit() -> None:
    original, x = frame(), torch.rand(5, 7)
    filled = schema().fill(original, x)
    assert (filled.dtypes == original.dtypes).all()
    assert filled.notna().all(axis=None)
    pd.testing.assert_frame_equal(filled.where(original.notna()), original, check_exact=True)


def test_likelihood_of_a_table() -> None:
    parts = list(schema().likelihood().parts)
    kinds = [
        (GaussianLikelihood, 2),
        (NegativeBinomialLikelihood, 1),
        (GaussianLikelihood, 1),
        (CategoricalLikelihood, 1),
        (OrdinalLikelihood, 1),
        (BernoulliLikelihood, 1),
    ]
    assert [(type(part), part.features) for part in parts] == kinds


def test_neighbours_share_a_likelihood() -> None:
    """Categories only with as many classes and the same order."""
    sizes = {"a": 2, "b": 2, "c": 3}
    made = pd.DataFrame(
        {n: pd.Categorical.from_codes([0, 1], list("xyz")[:s]) for n, s in sizes.items()}
    )
    assert [part.features for part in Schema.of(made).likelihood().parts] == [2, 1]


def test_features_of_a_table() -> None:
    features = TableFeatures(schema().columns)
    x = schema().encode(frame())
    out = features(x)
    assert out.shape == (5, features.out_features) == (5, 10)
    torch.testing.assert_close(out[:2, 2], torch.tensor([4.0, 1.0]).log())
    assert out[0, 4:6].tolist() == [1.0, 0.0]
    assert out[1, 4:6].isnan().all()
    assert out[1, 6:9].tolist() == [0.0, 0.0, 1.0]
    assert out[4].isnan().all()


def test_fitting_a_frame() -> None:
    """The bound of what is observed rises, with finite gradients; a row of holes has none."""
    x = schema().encode(pd.concat([frame()] * 20))
    model = Incomplete(VAE(7, 2, (8,), schema().likelihood()))
    guide = AmortizedNormal(TableEncoder(schema(), (8,)), encoder_features=8, latent_features=2)
    with pyro.settings.context(module_local_params=True):
        loss = ELBO(2)(model, guide)
        before = IWAE(5).bound(model, guide, x).mean()
        adam = torch.optim.Adam(loss.parameters(), 0.02)
        for _ in range(40):
            adam.zero_grad()
            loss(x).backward()
            assert all(
                bool(p.grad.isfinite().all()) for p in loss.parameters() if p.grad is not None
            )
            adam.step()
        assert IWAE(5).bound(model, guide, x).mean() > before + 1


@pytest.mark.parametrize("method", ["sir", "mean"])
def test_from_a_frame_to_completed_frames(method: str) -> None:
    """Trained by ``fit``: cells are filled with what their columns can have, rows of holes too."""
    original = pd.concat([frame()] * 4, ignore_index=True)
    x = schema().encode(original)
    model = Incomplete(VAE(7, 2, (8,), schema().likelihood()))
    guide = AmortizedNormal(TableEncoder(schema(), (8,)), encoder_features=8, latent_features=2)
    pyro_lvm.fit(model, guide, x, IWAE(5), max_steps=2, allow_nan=True, progress=False)
    imputed = pyro_lvm.impute(model, guide, x, num_samples=3, num_particles=50, method=method)
    for values in imputed.values:
        completed = schema().fill(original, values)
        assert completed.notna().all(axis=None)
        assert (completed.dtypes == original.dtypes).all()
        assert (completed["visits"] >= 0).all()
        assert (completed["income"] > 0).all()


BAD: dict[str, tuple[Any, tuple[str, str, str, str]]] = {
    "never observed": (
        {"a": [1.0, 2.0], "b": [np.nan, np.nan]},
        ("column 'b'", "observed cells", "none", "Drop"),
    ),
    "constant": (
        {"a": [1.0, 1.0]},
        ("column 'a'", "values that vary", "1.0 in all cells", "Drop constant"),
    ),
    "infinite": (
        {"a": [1.0, np.inf]},
        ("column 'a'", "finite numbers", "inf in row 1", "set them to NA"),
    ),
    "words": ({"a": ["x", "y"]}, ("column 'a'", "category dtype", "", "astype('category')")),
    "empty": ({}, ("frame", "rows and columns", "(0, 0)", "Check the file")),
}


@pytest.mark.parametrize("name", BAD)
def test_frames_without_a_schema(name: str) -> None:
    data, texts = BAD[name]
    with explained(DataError, *texts):
        Schema.of(pd.DataFrame(data))


def test_names_and_kinds_that_do_not_fit() -> None:
    made = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with explained(DataError, "frame", "one column of each name", "['a', 'a']", "Rename"):
        Schema.of(made)
    with explained(DataError, "kinds", "columns among", "['z']", "Name columns"):
        Schema.of(frame(), {"z": "real"})
    with explained(ProgramError, "kinds", "'real'", "'reel'", "kinds="):
        Schema.of(frame(), {"height": "reel"})
    with explained(DataError, "column 'place'", "integer", "category", "Convert"):
        Schema.of(frame(), {"place": "real"})
    with explained(DataError, "column 'visits'", "0 or 1", "3 in row 'a' (2 of 5 cells)", "kinds="):
        Schema.of(frame(), {"visits": "binary"})
    with explained(DataError, "column 'change'", "above 0", "-3 in row 'a'", "kinds="):
        Schema.of(frame(), {"change": "positive"})


def test_cells_that_the_schema_does_not_know() -> None:
    new = frame()
    new["place"] = pd.Categorical(["moon", None, "town", "sea", None])
    with explained(
        DataError, "column 'place'", "one of ['sea', 'town']", "'moon' in row 'a'", "NA"
    ):
        schema().encode(new)
    new = frame()
    new.loc["b", "visits"] = -1
    with explained(DataError, "column 'visits'", "whole numbers from 0", "-1 in row 'b'", "NA"):
        schema().encode(new)
    with explained(DataError, "frame", "columns ['height'", "['height']", "columns"):
        schema().encode(frame().drop(columns="height"))


def test_numbers_that_are_no_frame() -> None:
    with explained(DataError, "x", "(rows, 7)", "(5, 6)", "one imputation"):
        schema().decode(torch.zeros(5, 6))
    complete = Schema.of(pd.DataFrame({"a": [1, 2]}))
    with explained(DataError, "column 'a' of dtype int64", "each row", "missing", "'Int64'"):
        complete.decode(torch.tensor([[NAN]]))
    restored = complete.decode(torch.tensor([[1.6], [-3.0]]))
    assert restored["a"].tolist() == [2, 0]
    assert restored["a"].dtype == np.int64


# Ordered classes.


@pytest.mark.usefixtures("float64")
def test_ordinal_probabilities() -> None:
    likelihood = OrdinalLikelihood(2, 4)
    likelihood.cut_points = torch.tensor([[-1.0, 0.5, 2.0], [-3.0, -2.9, 4.0]])
    output = torch.randn(5, 2, requires_grad=True)
    cumulative = torch.sigmoid(likelihood.cut_points - output.unsqueeze(-1))
    edges = torch.cat([torch.zeros(5, 2, 1), cumulative, torch.ones(5, 2, 1)], -1)
    torch.testing.assert_close(likelihood(output).probs, edges.diff())


def test_ordinal_gradients_stay_finite() -> None:
    likelihood = OrdinalLikelihood(1, 4)
    output = torch.tensor([[-200.0], [0.0], [200.0]], requires_grad=True)
    likelihood(output).log_prob(torch.tensor([[3.0], [1.0], [0.0]])).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert all(bool(p.grad.isfinite().all()) for p in likelihood.parameters())


def test_ordinal_needs_two_classes() -> None:
    with explained(ProgramError, "num_classes", "at least 2", "1", "Leave out"):
        OrdinalLikelihood(1, 1)
