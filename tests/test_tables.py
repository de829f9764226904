"""Tables of columns of every kind: there and back, their likelihoods, features and mistakes."""

from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from explained import explained

import pyro_lvm
from pyro_lvm.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    OrdinalLikelihood,
)
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import Incomplete, RealColumn, Schema, TableEncoder, TableFeatures
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO, IWAE

NAN = torch.nan


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
    "huge": (
        {"a": [1e200, 3e200]},
        ("column 'a'", "float64 can compute", "from 1e+200 to 3e+200", "unit"),
    ),
    "tiny": (
        {"a": [1e-200, 3e-200]},
        ("column 'a'", "float64 can compute", "from 1e-200 to 3e-200", "unit"),
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


def test_numbers_from_zero_stay_there() -> None:
    """A Normal likelihood knows of no limits."""
    rain = pd.DataFrame({"rain": [0.0, 0.5, 3.0]})
    (column,) = Schema.of(rain, {"rain": "nonnegative"}).columns
    numbers = np.array([-9.0, column.numbers(rain["rain"])[1], np.nan])
    assert column.restored(numbers).tolist() == pytest.approx([0.0, 0.5, np.nan], nan_ok=True)
    with explained(DataError, "column 'rain'", "numbers from 0", "-0.5 in row 0", "NA"):
        Schema.of(-rain[1:].reset_index(drop=True), {"rain": "nonnegative"})


@pytest.mark.parametrize("dtype", ["UInt8", "int16", "Int64", "UInt64", "float16"])
def test_draws_beyond_a_dtype_are_its_last_number(dtype: str) -> None:
    """Not what is left of them in so many bits."""
    column = RealColumn.of(pd.Series([1, 2], dtype=dtype))
    restored = column.restored(np.array([-1e30, 0.0, 1e30]))
    assert restored.dtype == dtype
    low, middle, high = restored.astype("float64")
    info = (np.finfo if dtype == "float16" else np.iinfo)(dtype.lower())
    assert low == max(float(info.min), -(2.0**63))
    assert middle == pytest.approx(1.5, abs=0.5)
    assert high == pytest.approx(min(float(info.max), 2.0**63))


def test_numbers_that_are_no_frame() -> None:
    with explained(DataError, "x", "(rows, 7)", "(5, 6)", "one imputation"):
        schema().decode(torch.zeros(5, 6))
    complete = Schema.of(pd.DataFrame({"a": [1, 2]}))
    with explained(DataError, "column 'a' of dtype int64", "each row", "missing", "'Int64'"):
        complete.decode(torch.tensor([[NAN]]))
    restored = complete.decode(torch.tensor([[1.6], [-3.0]]))
    assert restored["a"].tolist() == [2, 0]
    assert restored["a"].dtype == np.int64
