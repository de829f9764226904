"""Real tables as frames in their own units, and cells of them hidden at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn import datasets

from pyro_lvm.data import horse_colic
from pyro_lvm.data.files import EMBEDDED
from pyro_lvm.missing import mcar

__all__ = ["TABLES", "hidden"]


def _wine_quality() -> Any:
    frame = pd.read_csv(EMBEDDED / "wine_quality.csv.gz").astype("float64")
    grades = sorted(frame.iloc[:, -1].unique())
    return frame.astype({frame.columns[-1]: pd.CategoricalDtype(grades, ordered=True)})


def _concrete() -> Any:
    return pd.read_csv(EMBEDDED / "concrete.csv.gz").astype("float64")


def _of_scikit(load: Callable[..., Any], *classes: str) -> Any:
    frame = load(as_frame=True, **({"scaled": False} if load is datasets.load_diabetes else {}))
    return frame.frame.astype("float64").astype(dict.fromkeys(classes, "category"))


def _horse_colic() -> Any:
    frame = horse_colic()
    return frame.assign(
        protein=frame["protein"].where(frame["protein"] < 20, frame["protein"] / 10)
    )


TABLES: dict[str, Callable[[], Any]] = {
    "wine_quality": _wine_quality,
    "concrete": _concrete,
    "breast_cancer": lambda: _of_scikit(datasets.load_breast_cancer, "target"),
    "diabetes": lambda: _of_scikit(datasets.load_diabetes, "sex"),
    "wine": lambda: _of_scikit(datasets.load_wine, "target"),
    "horse_colic": _horse_colic,
}
"""By name; floats are numbers, categories are classes."""


def hidden(frame: Any, rate: float, seed: int) -> Any:
    """Which known cells to hide, ``(rows, columns)`` of bool, each with probability ``rate``."""
    known = torch.tensor(np.where(frame.isna(), np.nan, 0.0))
    return ((~mcar(known, rate, seed=seed)) & ~known.isnan()).numpy()
