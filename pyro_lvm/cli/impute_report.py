"""What an imputed table leaves: completed copies, imputations.nc for ArviZ, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]

from pyro_lvm.cli.figures import save_figure, training_curves
from pyro_lvm.cli.writing import save_container
from pyro_lvm.diagnostics import Imputations, plot_imputed_columns, plot_intervals
from pyro_lvm.imputation import LatentImputer, TableCodec
from pyro_lvm.missing import BinaryColumn, ClassColumn, Column, CountColumn, RealColumn
from pyro_lvm.training.files import written_whole

__all__ = ["in_words", "summary", "write_imputations"]

_KINDS: dict[type[Column], str] = {
    RealColumn: "numbers",
    CountColumn: "counts",
    ClassColumn: "categories (how many)",
    BinaryColumn: "true or false",
}
_MOST_NAMES = 20
_FEW_ROWS = 20
_QUANTITIES = {
    "loss": "training loss (nats per row)",
    "bound": "held-out bound (nats per row)",
}


def summary(frame: Any, codec: TableCodec) -> str:
    """Size of a table, what is missing in it, and what is done about special columns and rows."""
    missing = frame.isna()
    lines = [
        f"{len(frame)} rows, {len(frame.columns)} columns, "
        f"{missing.mean(axis=None):.1%} of the cells missing, in {missing.any(axis=1).sum()} rows"
    ]
    if empty := int(missing.all(axis=1).sum()):
        lines.append(f"{empty} rows without any observed cell: drawn from the model alone")
    kinds = {
        **_kinds(codec),
        "constant columns, filled with their value": codec.constants,
        "names of rows, better left out of the table": _names_of_rows(frame, codec),
    }
    lines += [f"{kind}: {_listed(list(names))}" for kind, names in kinds.items() if names]
    return "\n".join(lines)


def _kinds(codec: TableCodec) -> dict[str, list[str]]:
    """The names of the columns of each kind, which may have been taken for another than meant."""
    kinds: dict[str, list[str]] = {}
    for column in codec.schema.columns:
        count = f" ({column.num_classes})" if column.num_classes else ""
        kinds.setdefault(_KINDS[type(column)], []).append(f"{column.name}{count}")
    return kinds


def _names_of_rows(frame: Any, codec: TableCodec) -> list[Any]:
    """Categories and counts of which no two rows share one, in tables of some length."""
    columns = [c.name for c in codec.schema.columns if isinstance(c, ClassColumn | CountColumn)]
    return [name for name in columns if frame[name].nunique() == frame[name].count() > _FEW_ROWS]


def _listed(names: list[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def write_imputations(imputer: LatentImputer, frame: Any, cells: Any, folder: Path) -> str:
    """Write tables, draws and figures; returns how far the draws are to be trusted.

    Args:
        imputer: trained.
        frame: the table with its holes.
        cells: its cells as they stand in the file; observed ones are written so again.
        folder: where to.
    """
    imputed = imputer.impute(frame)
    completed = [imputer.codec_.complete(frame, values) for values in imputed.values]
    copies = {f"imputation_{number:02d}.csv": copy for number, copy in enumerate(completed)}
    for name, copy in {"completed.csv": imputer.transform(frame), **copies}.items():
        with written_whole(folder / name) as path:
            in_words(copy, frame, cells).to_csv(path, index=False)
    for other in {*folder.glob("imputation_*.csv")} - {folder / name for name in copies}:
        other.unlink()  # of a run that made more of them
    container = imputed.to_inference_data(frame, imputer.codec_.schema)
    save_container(container, folder / "imputations.nc")
    _write_figures(imputer, frame, completed, folder / "figures")
    return _quality(imputed)


def in_words(completed: Any, frame: Any, cells: Any) -> Any:
    """A completed table as text: cells as in the file, the others as the like of them there.

    Example:
        >>> cells = pd.DataFrame({"fever": ["yes", "TRUE", "FALSE"], "code": ["01", "02", ""]})
        >>> frame = pd.DataFrame({"fever": [None, True, False], "code": [1.0, 2.0, None]})
        >>> in_words(frame.fillna({"fever": False, "code": 2.0}), frame, cells)
           fever code
        0  FALSE   01
        1   TRUE   02
        2  FALSE   02
    """
    words = {}
    for name in frame.columns:
        known = frame[name].notna()
        spelled = dict(zip(frame[name][known], cells[name][known].str.strip(), strict=True))
        filled = [spelled.get(value, str(value)) for value in completed[name].astype(object)]
        words[name] = cells[name].where(known, filled)
    return pd.DataFrame(words)


def _write_figures(imputer: LatentImputer, frame: Any, completed: list[Any], folder: Path) -> None:
    named = {title: (name, _curve(imputer, name)) for name, title in _QUANTITIES.items()}
    curves = {title: {name: curve} for title, (name, curve) in named.items() if curve[0]}
    save_figure(training_curves(curves), folder / "training_curves.png")
    frame = frame.drop(columns=list(imputer.codec_.constants))
    if frame.isna().any(axis=None):
        save_figure(plot_imputed_columns(frame, completed), folder / "columns.png")
    if frame.select_dtypes("number").isna().any(axis=None):
        save_figure(plot_intervals(frame, completed), folder / "intervals.png")


def _curve(imputer: LatentImputer, quantity: str) -> tuple[list[float], list[float]]:
    """Steps and values, where there are any."""
    steps: list[float] = []
    values: list[float] = []
    for step, value in zip(imputer.history_["step"], imputer.history_[quantity], strict=True):
        if step is not None and value is not None and value == value:
            steps.append(step)
            values.append(value)
    return steps, values


def _quality(imputed: Imputations) -> str:
    holed = ~imputed.observed.all(1)
    if imputed.khat is None or not holed.any():
        return f"{int(holed.sum())} rows completed {len(imputed.values)} times"
    bad = float((imputed.khat[holed] > 0.7).double().mean())
    return (
        f"{int(holed.sum())} rows completed {len(imputed.values)} times; "
        f"k-hat above 0.7, draws not to be trusted, in {bad:.0%} of them"
    )
