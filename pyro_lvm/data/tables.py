"""Tables: standardised columns of numbers, shipped or of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_lvm.data.checks import check_name
from pyro_lvm.data.files import EMBEDDED
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.data.standardize import standardize

__all__ = ["TABLES", "Table", "table"]


@dataclass(frozen=True)
class Table:
    """What one table is.

    Attributes:
        summary: in one line.
        licence: terms of use.
        source: where to get it, and whom to cite.
        classes: the target is a class, so a label; otherwise it is the last column.
    """

    summary: str
    licence: str
    source: str
    classes: bool = False


_CC_BY = "CC BY 4.0 (UCI)"
_SCIKIT = "BSD-3-Clause (scikit-learn's copy)"

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "breast_cancer": Table(
            "569 tumours, 30 measures of their cells' nuclei; benign or malignant.",
            f"{_CC_BY}; {_SCIKIT}",
            "Wolberg, Mangasarian, Street, Street (1993), UCI, doi:10.24432/C5DW2B",
            classes=True,
        ),
        "concrete": Table(
            "1,030 mixtures of concrete: 7 ingredients, age, and compressive strength.",
            _CC_BY,
            "Yeh (1998), Concrete compressive strength, UCI, doi:10.24432/C5PK67",
        ),
        "diabetes": Table(
            "442 patients: 10 measures, and the progression of diabetes a year later.",
            _SCIKIT,
            "Efron, Hastie, Johnstone, Tibshirani (2004), Least angle regression",
        ),
        "wine": Table(
            "178 wines of three cultivars, 13 chemical measures.",
            f"{_CC_BY}; {_SCIKIT}",
            "Aeberhard, Forina (1992), Wine, UCI, doi:10.24432/C5PC7J",
            classes=True,
        ),
        "wine_quality": Table(
            "1,599 red wines: 11 chemical measures, and a quality from 3 to 8.",
            _CC_BY,
            "Cortez, Cerdeira, Almeida, Matos, Reis (2009), UCI, doi:10.24432/C56S3T",
        ),
    }
)


def table(name: str) -> DataSplits:
    """One of :data:`TABLES`, its columns standardised by the mean and scale of training rows.

    A fixed shuffle, then 80% of the rows for training, 10% for validation and 10% for the
    test, or nearly so: equal rows, of which ``wine_quality`` has 240 to spare and ``concrete``
    25, are kept in one part. A target that is a number is the last column; a class is a label.
    Columns with few values, such as the quality, have no density: a bound in nats is then of
    use for comparison only.

    Args:
        name: of the table.

    Raises:
        DataError: there is no table of that name.

    Example:
        >>> table("concrete")
        DataSplits('concrete', train=822, validation=108, test=100, feature_shape=(9,))
        >>> sorted(table("wine").labels)
        ['test', 'train', 'validation']
    """
    about = check_name(name, TABLES, "table")
    rows, classes = _read(name, about)
    parts = _parts(rows)
    x = torch.as_tensor(rows, dtype=torch.get_default_dtype())
    train, mean, scale = standardize(x[parts["train"]])
    return DataSplits(
        name,
        train,
        (x[parts["validation"]] - mean) / scale,
        (x[parts["test"]] - mean) / scale,
        feature_shape=(x.shape[1],),
        licence=about.licence,
        source=about.source,
        labels={} if classes is None else {part: classes[i] for part, i in parts.items()},
    )


def _read(name: str, about: Table) -> tuple[Any, Tensor | None]:
    """Rows, and classes if there are any."""
    shipped = EMBEDDED / f"{name}.csv.gz"
    if shipped.exists():
        return np.loadtxt(shipped, delimiter=",", skiprows=1), None
    from sklearn import datasets  # type: ignore[import-untyped] # here, as it is slow to import

    rows, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    if about.classes:
        return rows, torch.as_tensor(target, dtype=torch.long)
    return np.column_stack([rows, target]), None


def _parts(rows: Any) -> dict[str, Tensor]:
    """Indices of the rows of each part; equal rows share a place in the shuffle."""
    different, group = np.unique(rows, axis=0, return_inverse=True)
    order = np.random.RandomState(0).permutation(len(different))
    place = torch.as_tensor(order[group.ravel()] / len(different))
    edges = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
    return {
        part: ((place >= low) & (place < high)).nonzero().flatten()
        for part, (low, high) in edges.items()
    }
