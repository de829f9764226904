"""Log-likelihoods of the data that are there, for ``az.loo``, ``az.waic`` and ``az.compare``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_lvm.inference_data import Groups, Variable

__all__ = ["without_missing"]


def without_missing(groups: Groups, labels: Mapping[str, Any]) -> Groups:
    r"""``groups`` whose log-likelihoods leave out data of which nothing is observed.

    These have 0 there, whatever the draw. The sum over data is the same without them, but each
    counts as one: of N terms of which n are data, with mean m, the squared standard error
    :math:`N \, \mathrm{Var}` is too large by :math:`m^2 n (N - n) / N`, and k-hat of constant
    weights is none. What is left lies along one dim ``<variable>_observed``; the labels of its
    plates are coordinates ``<variable>_<plate>`` beside it. Where all data are there, nothing
    changes.

    Args:
        groups: with log_likelihood, and observed_data that are NaN where they are missing.
        labels: by plate; 0, 1, ... if left out.

    Example:
        >>> data = Variable(("person",), np.array([0.5, np.nan, 2.0]))
        >>> scores = Variable(("person",), np.array([[-1.0, 0.0, -3.0]]))  # of one draw
        >>> groups = {"observed_data": {"x": data}, "log_likelihood": {"x": scores}}
        >>> kept = without_missing(groups, {"person": ["a", "b", "c"]})["log_likelihood"]["x"]
        >>> kept.dims, kept.values, kept.beside["x_person"]
        (('x_observed',), array([[-1., -3.]]), array(['a', 'c'], dtype='<U1'))
    """
    scores = groups.get("log_likelihood", {})
    kept = {
        name: _kept(name, each, groups["observed_data"], labels) for name, each in scores.items()
    }
    return {**groups, "log_likelihood": kept}


def _kept(
    name: str, scores: Variable, data: Mapping[str, Variable], labels: Mapping[str, Any]
) -> Variable:
    known = _known(data[name].values, len(scores.dims))
    if known.all():
        return scores
    places = dict(zip(scores.dims, known.nonzero(), strict=True))
    beside = {
        f"{name}_{plate}": np.asarray(labels.get(plate, range(known.size)))[rows]
        for plate, rows in places.items()
    }
    return Variable((f"{name}_observed",), scores.values[:, known], beside)


def _known(data: NDArray[Any], num_plates: int) -> NDArray[np.bool_]:
    """Of which data ``(*plates, *event)`` anything is observed, ``(*plates,)``."""
    if data.dtype.kind not in "fc":
        return np.ones(data.shape[:num_plates], bool)
    known: NDArray[np.bool_] = (~np.isnan(data)).any(axis=tuple(range(num_plates, data.ndim)))
    return known
