"""The scikit-learn transformer: estimator checks, frames of mixed columns, what it refuses."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from explained import explained
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_lvm
from pyro_lvm.diagnostics import MetropolisWithinGibbs
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.imputation import LatentImputer, TableCodec
from pyro_lvm.missing import BinaryColumn, RealColumn, Schema, mcar

FAMILIES = ["miwae", "vaeac", "vgi"]


def small(family: str = "miwae", **options: Any) -> LatentImputer:
    sizes: dict[str, Any] = {"latent_features": 2, "hidden": (5,), "max_steps": 2, "num_draws": 6}
    return LatentImputer(family, **{**sizes, "device": "cpu", "random_state": 0, **options})


@parametrize_with_checks([small(), small("vgi")])
def test_estimator_checks(estimator: LatentImputer, check: Any) -> None:
    """All that apply to a transformer of floats with NaN; none is expected to fail."""
    check(estimator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_zeros_and_ones_are_binary(family: str, dtype: str) -> None:
    """Right and wrong answers with holes, of whatever dtype: no 2 and no 0.4 is drawn for them."""
    right = pd.Series([1, 0, None, 1] * 5, dtype=dtype)
    frame = pd.DataFrame({"right": right, "age": range(20)})
    imputer = small(family).fit(frame)
    assert isinstance(imputer.codec_.schema.columns[0], BinaryColumn)
    for table in imputer.sample(frame):
        assert table["right"].isin([0, 1]).all()
        assert table["right"].dtype == dtype
    by_choice = Schema.of(frame, {"right": "real"}).columns[0]
    assert isinstance(by_choice, RealColumn)


def test_complex_numbers_are_refused() -> None:
    """NumPy would drop their imaginary part with a warning."""
    frame = pd.DataFrame({"a": [1 + 2j, 3 - 1j], "b": [1.0, 2.0]})
    with explained(DataError, "column 'a'", "a float, integer, boolean", "complex128", "Convert"):
        small().fit(frame)


def people(count: int = 30) -> pd.DataFrame:
    """A column of every kind, with holes; one is constant, and one row is nothing but holes."""
    random = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "height": random.normal(1.7, 0.1, count).astype("float32"),
            "visits": pd.array(random.poisson(3.0, count), dtype="Int64"),
            "place": pd.Categorical(random.choice(["sea", "town"], count)),
            "grade": pd.Categorical(
                random.choice(["low", "mid", "high"], count),
                categories=["low", "mid", "high"],
                ordered=True,
            ),
            "member": pd.array(random.rand(count) < 0.5, dtype="boolean"),
            "name": random.choice(["Ada", "Ben"], count).astype(object),
            "year": 2020.0,
        },
        index=[f"person {i}" for i in range(count)],
    )
    holes = random.rand(*frame.shape) < 0.2
    holes[0] = True
    return frame.mask(holes)


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_of_a_frame(family: str) -> None:
    original = people()
    imputer = small(family)
    for completed in [imputer.fit_transform(original), *imputer.sample(original, 4)]:
        assert completed.notna().all(axis=None)
        assert (completed.dtypes == original.dtypes).all()
        assert completed.index.equals(original.index)
        assert completed.columns.equals(original.columns)
        kept = completed.where(original.notna(), original)
        pd.testing.assert_frame_equal(kept, original, check_exact=True)
        assert (completed["visits"] >= 0).all() or family == "vgi"
        assert (completed["year"] == 2020.0).all()
    assert imputer.get_feature_names_out().tolist() == list(original.columns)


@pytest.mark.parametrize("family", FAMILIES)
def test_array_of_dependent_columns(family: str) -> None:
    """Better than the mean, and draws that vary; the same again from the same random state."""
    torch.manual_seed(5)
    x = torch.randn(200, 1) + 0.2 * torch.randn(200, 4)
    holes = ~mcar(x, 0.3)
    table = np.where(holes, np.nan, x.numpy())
    imputer = small(family, hidden=(32,), max_steps=100, num_draws=50, learning_rate=2e-2)
    completed = imputer.fit_transform(table)
    assert completed.dtype == table.dtype
    error = (completed - x.numpy())[holes.numpy()]
    assert np.square(error).mean() < 0.5 * np.square(x.numpy()[holes.numpy()]).mean()
    first, second = imputer.sample(table, 2)
    assert (first != second)[holes.numpy()].all()
    again = clone(imputer).fit(table)
    assert np.array_equal(again.sample(table, 2)[1], second)


def test_random_states_of_others_are_left_alone() -> None:
    table = np.where(np.arange(40).reshape(20, 2) % 7 == 0, np.nan, np.random.randn(20, 2))
    torch.manual_seed(3)
    before, parameters = torch.get_rng_state(), dict(pyro.get_param_store())
    small().fit(table).sample(table)
    assert torch.equal(torch.get_rng_state(), before)
    assert dict(pyro.get_param_store()) == parameters


def test_other_methods_and_quality() -> None:
    table = people().drop(columns="name")
    imputer = small().fit(table)
    holed = torch.tensor(table.drop(columns="year").isna().any(axis=1).to_numpy())
    by_weight = imputer.impute(table, 4)
    assert by_weight.khat is not None
    assert by_weight.effective_sample_size is not None
    assert torch.equal(by_weight.effective_sample_size.isnan(), ~holed)
    chains = imputer.impute(table, 4, MetropolisWithinGibbs(num_warmup=2, thin=1))
    assert chains.acceptance is not None
    assert torch.equal(chains.acceptance.isnan(), ~holed)
    assert chains.num_chains == 2
    x = chains.to_xarray(table, imputer.codec_.schema)
    assert x.sel(row="person 3", column="height").shape == (2, 2)


def test_rows_in_chunks() -> None:
    table = people()
    whole, parts = small().fit(table), small(chunk_size=4).fit(table)
    assert parts.transform(table).notna().all(axis=None)
    assert parts.impute(table).values.shape == whole.impute(table).values.shape
    complete = parts.transform(table)
    pd.testing.assert_frame_equal(parts.transform(complete), complete)


def test_pipelines_pickles_and_outputs() -> None:
    table = people()[["height"]].assign(weight=np.linspace(50, 90, 30))
    imputer = small().fit(table)
    again = pickle.loads(pickle.dumps(imputer))
    pd.testing.assert_frame_equal(again.transform(table), imputer.transform(table))
    numbers = table.to_numpy()
    named = small().set_output(transform="pandas").fit(numbers).transform(numbers)
    assert named.columns.tolist() == ["x0", "x1"]
    line = make_pipeline(small(), LinearRegression()).fit(numbers, np.arange(30.0))
    assert np.isfinite(line.predict(numbers)).all()


def test_name_at_the_top() -> None:
    assert pyro_lvm.LatentImputer is LatentImputer


def test_tables_that_nothing_can_be_learned_of() -> None:
    with explained(DataError, "column 'b'", "observed cells", "none", "Drop"):
        small().fit(pd.DataFrame({"a": [1.0, 2.0], "b": [np.nan, np.nan]}))
    with explained(DataError, "table", "columns that vary", "2 constant ones", "nothing to learn"):
        small().fit(pd.DataFrame({"a": [1.0, 1.0], "b": ["x", None]}))
    with explained(DataError, "column 'a'", "numbers", "'x' in row 1 (1 of 3 cells)", "Correct"):
        small().fit(pd.DataFrame({"a": pd.Series([1.0, "x", None], dtype=object)}))
    with explained(DataError, "frame", "one column of each name", "['a', 'a']", "Rename"):
        small().fit(pd.DataFrame([[1.0, 2.0], [2.0, 3.0]], columns=["a", "a"]))
    with explained(ProgramError, "family", "'miwae'", "'mice'", "family="):
        small("mice").fit(people())


def test_cells_not_seen_before() -> None:
    imputer, new = small().fit(people()), people()
    new["place"] = new["place"].cat.rename_categories(["sea", "moon"])
    with explained(DataError, "column 'place'", "one of ['sea', 'town']", "'moon' in row", "NA"):
        imputer.transform(new)
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(people().drop(columns="grade"))


def test_cells_of_objects_come_back_as_they_were() -> None:
    """Long numbers with all digits, whole ones whole, beside what was missing."""
    frame = pd.DataFrame(
        {"id": [10**17 + 1, None, 3], "dose": [1, 2.5, None], "on": [np.True_, False, None]},
        dtype=object,
    )
    codec = TableCodec.of(frame)
    completed = codec.complete(frame, codec.encode(frame).nan_to_num(0.0))
    assert {str(dtype) for dtype in completed.dtypes} == {"object"}
    assert completed.notna().all(axis=None)
    for name in frame:
        cells = zip(frame[name], completed[name], strict=True)
        assert all(type(new) is type(old) and new == old for old, new in cells if old is not None)


@pytest.mark.parametrize("dtype", ["Int64", object])
def test_counts_of_normal_conditionals_are_not_negative(dtype: Any) -> None:
    counts = pd.Series(np.random.RandomState(0).poisson(0.5, 60), dtype=dtype)
    counts[:20] = None
    frame = pd.DataFrame({"visits": counts, "dose": np.linspace(0.0, 1.0, 60)})
    completed = small("vgi", max_steps=20).fit(frame).sample(frame, num_imputations=4)
    drawn = pd.concat([table["visits"][:20] for table in completed])
    assert (drawn == 0).any()
    assert (drawn >= 0).all()
    with explained(ProgramError, "kinds", "no counts", "'count' of ['visits']", "'nonnegative'"):
        small("vgi", kinds={"visits": "count"}).fit(frame)
