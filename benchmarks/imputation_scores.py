"""How near imputed cells are to the truth, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["coverage", "errors"]


def errors(truth: Any, imputed: Any, hidden: Any) -> dict[str, float]:
    """NRMSE and PFC of hidden cells.

    Args:
        truth: the frame.
        imputed: its completed copy.
        hidden: bool ``(rows, columns)``.

    Returns:
        ``nrmse``, the root of the mean squared error over the standard deviation of the column,
        averaged over columns of numbers; ``pfc``, the share of wrong classes, averaged over those
        of classes. NaN where there are no such columns.
    """
    numbers, classes = [], []
    for name, cells in zip(truth.columns, hidden.T, strict=True):
        true, guess = truth[name][cells], imputed[name][cells]
        if isinstance(truth[name].dtype, pd.CategoricalDtype):
            classes.append((true.astype(object) != guess.astype(object)).mean())
        else:
            numbers.append(np.sqrt(((true - guess) ** 2).mean()) / truth[name].std())
    return {"nrmse": _mean(numbers), "pfc": _mean(classes)}


def coverage(
    truth: Any, imputed: Sequence[Any], hidden: Any, level: float = 0.9
) -> dict[str, float]:
    """Of intervals between quantiles of multiple imputations, for hidden numbers.

    Returns:
        ``coverage``, the share of true numbers in their interval, and ``width``, the mean width
        over the standard deviation of the column, both averaged over columns.
    """
    inside, widths = [], []
    for name, cells in zip(truth.columns, hidden.T, strict=True):
        if isinstance(truth[name].dtype, pd.CategoricalDtype):
            continue
        draws = np.stack([frame[name][cells].to_numpy() for frame in imputed])
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        true = truth[name][cells].to_numpy()
        inside.append(((low <= true) & (true <= high)).mean())
        widths.append((high - low).mean() / truth[name].std())
    return {"coverage": _mean(inside), "width": _mean(widths)}


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")
