"""Pictures of imputations; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from pyro_lvm.errors import DataError, explain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_imputed_columns", "plot_intervals"]

_OBSERVED, _IMPUTED = "0.65", "tab:blue"
_BINS = 25


def plot_imputed_columns(
    frame: Any, completed: Sequence[Any], *, max_columns: int = 12, panels: int = 4
) -> Figure:
    """Observed and imputed cells of each column, beside each other.

    The two need not agree: cells may be missing because of what they are likely to be. Imputed
    cells far from anything observed are worth a look.

    Args:
        frame: with missing cells.
        completed: its multiple imputations, as of :meth:`Imputations.frames`.
        max_columns: most columns to show, those with most missing cells.
        panels: in a row.

    Raises:
        DataError: nothing is missing, or there are no imputations.

    Example:
        >>> frame = pd.DataFrame({"a": [1.0, 2.0, None], "b": pd.Categorical(["x", None, "y"])})
        >>> filled = [frame.assign(a=[1.0, 2.0, 1.5], b=pd.Categorical(["x", "x", "y"]))]
        >>> [axes.get_title() for axes in plot_imputed_columns(frame, filled).axes]
        ['a: 33 % missing', 'b: 33 % missing']
    """
    from matplotlib.figure import Figure

    names = _holed(frame, completed)[:max_columns]
    rows = ceil(len(names) / panels)
    width = min(panels, len(names))
    figure = Figure(figsize=(3.0 * width, 2.2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, width, squeeze=False).flatten()
    for axes, name in zip(grid, names, strict=False):
        missing = frame[name].isna()
        imputed = pd.concat([table.loc[missing, name] for table in completed])
        draw = _bars if _is_class(frame[name]) else _histograms
        draw(axes, frame[name].dropna(), imputed)
        axes.set_title(f"{name}: {missing.mean():.0%} missing".replace("%", " %"), fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    for axes in grid[len(names) :]:
        axes.remove()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def plot_intervals(
    frame: Any,
    completed: Sequence[Any],
    *,
    level: float = 0.9,
    max_columns: int = 4,
    max_cells: int = 60,
) -> Figure:
    """Missing numbers with their intervals, in order of their medians, over those observed.

    An interval as wide as the band of observed cells says that the row told nothing.

    Args:
        frame: with missing cells.
        completed: its multiple imputations.
        level: of the intervals and the band.
        max_columns: most columns to show, those of numbers with most missing cells.
        max_cells: most cells of a column, spread over all.

    Raises:
        DataError: no number is missing, or there are no imputations.

    Example:
        >>> frame = pd.DataFrame({"a": [1.0, 2.0, None]})
        >>> filled = [frame.fillna(value) for value in (1.0, 1.5, 2.0)]
        >>> [axes.get_title() for axes in plot_intervals(frame, filled).axes]
        ['a']
    """
    from matplotlib.figure import Figure

    numbers = [name for name in frame if not _is_class(frame[name])]
    names = _holed(frame[numbers], completed)[:max_columns]
    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    tails = [(1 - level) / 2, 0.5, (1 + level) / 2]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        missing = frame[name].isna()
        draws = np.stack([table.loc[missing, name].to_numpy(dtype=float) for table in completed])
        low, middle, high = np.quantile(draws, tails, axis=0)
        order = np.argsort(middle)[:: max(1, ceil(len(middle) / max_cells))]
        known = np.quantile(frame[name].dropna().to_numpy(dtype=float), tails)
        axes.axhspan(known[0], known[2], color=_OBSERVED, alpha=0.35, lw=0)
        axes.axhline(known[1], color=_OBSERVED)
        axes.vlines(range(len(order)), low[order], high[order], color=_IMPUTED, lw=1.2, alpha=0.7)
        axes.plot(middle[order], ".", color=_IMPUTED, ms=4)
        axes.set_title(str(name), fontsize=10)
        axes.set(xticks=[], xlabel="missing cells")
    label = f"median, {level:.0%} interval\ngrey: observed".replace("%", " %")
    figure.supylabel(label, fontsize=9)
    return figure


def _holed(frame: Any, completed: Sequence[Any]) -> list[Any]:
    """Columns with missing cells, most first."""
    counts = frame.isna().sum().sort_values(ascending=False, kind="stable")
    if not len(completed) or not counts.sum():
        hint = "Pass the frame as it was before imputation, and its completed copies."
        found = f"{int(counts.sum())} missing cells, {len(completed)} copies"
        raise DataError(explain("frame", "missing cells and their imputations", found, hint))
    return list(counts.index[counts > 0])


def _is_class(series: Any) -> bool:
    return isinstance(series.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(series)


def _histograms(axes: Axes, observed: Any, imputed: Any) -> None:
    values = [series.to_numpy(dtype=float) for series in (observed, imputed)]
    low, high = np.quantile(np.concatenate(values), [0.001, 0.999])
    bins = np.linspace(low, high if high > low else low + 1, _BINS).tolist()
    known, drawn = (cells.clip(low, high) for cells in values)
    axes.hist(known, bins, density=True, color=_OBSERVED, label="observed")
    line: dict[str, Any] = {"histtype": "step", "color": _IMPUTED, "lw": 1.5}
    axes.hist(drawn, bins, density=True, label="imputed", **line)


def _bars(axes: Axes, observed: Any, imputed: Any) -> None:
    if pd.api.types.is_bool_dtype(observed):
        classes = [False, True]
    else:
        classes = list(observed.cat.categories)
    for series, color, shift, label in (
        (observed, _OBSERVED, -0.2, "observed"),
        (imputed, _IMPUTED, 0.2, "imputed"),
    ):
        shares = series.value_counts(normalize=True).reindex(classes).fillna(0.0)
        axes.bar(np.arange(len(classes)) + shift, shares, 0.4, color=color, label=label)
    axes.set_xticks(range(len(classes)), [str(c)[:12] for c in classes], rotation=30, ha="right")
