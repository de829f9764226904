"""The methods that complete tables: ours, and those of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression

from pyro_lvm import LatentImputer

__all__ = ["BASELINES", "OURS", "imputer_of"]

OURS = ("miwae", "vaeac", "vgi")
_TREES = 50


def imputer_of(family: str, seed: int, steps: int) -> LatentImputer:
    """Ours, at settings that are the same for all tables."""
    return LatentImputer(
        family,
        latent_features=8,
        hidden=(64, 64),
        max_steps=steps,
        learning_rate=5e-3,
        num_draws=100,
        random_state=seed,
        device="cpu",
    )


def _together(imputer: Any, table: Any) -> Any:
    """By a method for numbers: classes are indicators, and the largest one wins."""
    coded = pd.concat([_coded(table[name], name) for name in table], axis=1)
    filled = imputer.fit_transform((coded - coded.mean()) / _scale(coded))
    numbers = pd.DataFrame(filled, columns=coded.columns, index=table.index)
    numbers = numbers * _scale(coded) + coded.mean()
    return pd.DataFrame({name: _decoded(table[name], numbers[[name]]) for name in table})


def _in_turn(regressor: Any, classifier: Any, rounds: int, table: Any) -> Any:
    """Each column given all others, again and again: IterativeImputer that knows of classes."""
    filled = _together(SimpleImputer(), table)
    holed = table.isna().sum().sort_values()
    for _ in range(rounds):
        for name in holed.index[holed > 0]:
            others = pd.concat([_coded(filled[n], n) for n in table if n != name], axis=1)
            inputs = ((others - others.mean()) / _scale(others)).to_numpy()
            known = table[name].notna().to_numpy()
            method = classifier if _is_class(table[name]) else regressor
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                method.fit(inputs[known], table[name][known])
            filled.loc[~known, name] = method.predict(inputs[~known])
    return filled


BASELINES: dict[str, Callable[[Any, int], Any]] = {
    "mean, mode": lambda table, seed: _together(SimpleImputer(), table),
    "k-NN": lambda table, seed: _together(KNNImputer(n_neighbors=10, weights="distance"), table),
    "linear": lambda table, seed: _in_turn(
        BayesianRidge(), LogisticRegression(C=0.1, max_iter=200), 5, table
    ),
    "missForest": lambda table, seed: _in_turn(
        ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=seed),
        ExtraTreesClassifier(_TREES, min_samples_leaf=2, random_state=seed),
        3,
        table,
    ),
}
"""From a table and a seed to the completed table."""


def _is_class(series: Any) -> bool:
    return isinstance(series.dtype, pd.CategoricalDtype)


def _coded(series: Any, name: str) -> Any:
    """Numbers, or indicators of classes, under two names: the column's and the class's."""
    if not _is_class(series):
        return series.to_frame((name, ""))
    indicators = pd.get_dummies(series, dtype=float).mask(series.isna())
    indicators.columns = pd.MultiIndex.from_product([[name], range(indicators.shape[1])])
    return indicators


def _decoded(series: Any, numbers: Any) -> Any:
    if not _is_class(series):
        return series.fillna(numbers.iloc[:, 0])
    guess = pd.Categorical.from_codes(np.argmax(numbers.to_numpy(), 1), dtype=series.dtype)
    return series.where(series.notna(), pd.Series(guess, index=series.index))


def _scale(coded: Any) -> Any:
    return coded.std().where(lambda scale: scale > 0, 1.0)
