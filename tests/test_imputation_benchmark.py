"""The benchmark of imputation: its scores by hand, its methods, and that it runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import imputation, imputation_memory
from benchmarks.imputation_methods import BASELINES
from benchmarks.imputation_scores import coverage, errors
from benchmarks.imputation_tables import TABLES, hidden

TRUTH = pd.DataFrame({"a": [0.0, 2.0, 4.0], "c": pd.Categorical(["x", "y", "x"])})
HIDDEN = np.array([[True, True], [False, False], [True, True]])


def test_errors_by_hand() -> None:
    guess = TRUTH.assign(a=[1.0, 2.0, 4.0], c=pd.Categorical(["y", "y", "x"]))
    assert errors(TRUTH, guess, HIDDEN) == pytest.approx({"nrmse": 0.5**0.5 / 2, "pfc": 0.5})


def test_coverage_by_hand() -> None:
    copies = [TRUTH.assign(a=[value, 2.0, value]) for value in np.linspace(-1.0, 3.0, 101)]
    assert coverage(TRUTH, copies, HIDDEN) == pytest.approx({"coverage": 0.5, "width": 3.6 / 2})


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    """Numbers or classes in each column; only known cells are hidden, at the rate asked for."""
    table = TABLES[name]()
    cells = hidden(table, 0.5, seed=0)
    known = table.notna().to_numpy()
    assert not (cells & ~known).any()
    assert abs(cells[known].mean() - 0.5) < 4 * 0.5 / known.sum() ** 0.5
    assert {str(dtype) for dtype in table.dtypes} <= {"float64", "category"}


@pytest.mark.parametrize("method", BASELINES)
def test_baselines_fill_what_is_missing(method: str) -> None:
    table: Any = TABLES["wine"]().iloc[:, -5:]
    holed = table.mask(hidden(table, 0.3, seed=0))
    completed = BASELINES[method](holed, 0)
    assert completed.notna().all(axis=None)
    assert (completed.dtypes == table.dtypes).all()
    pd.testing.assert_frame_equal(completed.where(holed.notna(), holed), holed)
    if method != "mean, mode":
        assert (completed["target"] != table["target"]).mean() < 0.1


@pytest.mark.slow
def test_runs_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    options = ["--tables", "wine", "--rates", "0.5", "--steps", "2", "--results", str(path)]
    imputation.main([*options, "--seeds", "0", "--methods", "miwae"])
    imputation.main([*options, "--seeds", "0", "--methods", "miwae", "mean, mode"])
    assert [run["method"] for run in json.loads(path.read_text())] == ["miwae", "mean, mode"]
    assert capsys.readouterr().out.count("| miwae |") == 8


@pytest.mark.slow
def test_memory_is_measured() -> None:
    found = imputation_memory.measure(200, 4, steps=2, draws=5, copies=2)
    assert 0 < found["MB before"] <= found["MB draws"]
