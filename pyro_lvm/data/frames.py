"""Tables of mixed columns with cells that were never measured, as pandas frames."""

from __future__ import annotations

from typing import Any

import pandas as pd  # type: ignore[import-untyped]

from pyro_lvm.data.files import EMBEDDED

__all__ = ["horse_colic"]

_ORDERED = {
    "extremities": ["cold", "cool", "normal", "warm"],
    "capillary_refill": ["below 3 s", "3 s or more"],
    "pain": ["alert", "depressed", "mild", "severe", "continuous"],
    "peristalsis": ["absent", "hypomotile", "normal", "hypermotile"],
    "distension": ["flat", "slight", "moderate", "severe"],
    "nasogastric_tube": ["no gas", "slight", "significant"],
    "reflux": ["no", "below 1 l", "above 1 l"],
    "feces": ["absent", "decreased", "normal", "increased"],
}
_NUMBERS = 7


def horse_colic() -> Any:
    """300 horses with colic: 7 measures and 15 findings, a quarter of the cells missing.

    Temperatures are in degrees Celsius, rates in 1/min, cell volume in %. Protein comes in g/dl
    and, in other rows, in g/l: values above 20 are the latter. ``outcome``, ``surgery`` and
    ``surgical_lesion`` are known of nearly all horses.

    Returns:
        A ``pandas.DataFrame``; ordered findings are ordered categories.

    References:
        McLeish, Cecile (1989), *Horse colic*, UCI Machine Learning Repository,
        doi:10.24432/C58W23, CC BY 4.0. The training part, as text, without identifiers, the age
        and the codes of lesions.

    Example:
        >>> frame = horse_colic()
        >>> frame.shape, round(float(frame.isna().mean(axis=None)), 2)
        ((300, 22), 0.24)
        >>> frame[["pulse", "pain", "outcome"]].head(2)
           pulse        pain     outcome
        0   66.0  continuous        died
        1   88.0        mild  euthanized
    """
    frame = pd.read_csv(EMBEDDED / "horse_colic.csv.gz")
    kinds = {
        name: pd.CategoricalDtype(_ORDERED[name], ordered=True) if name in _ORDERED else "category"
        for name in frame.columns[_NUMBERS:]
    }
    return frame.astype({**dict.fromkeys(frame.columns[:_NUMBERS], "float64"), **kinds})
