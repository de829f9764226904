"""The check of the importance weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pyro_lvm.diagnostics.evidence import LogEvidence
from pyro_lvm.diagnostics.figures import plot_khat
from pyro_lvm.diagnostics.report_case import Case, Finding
from pyro_lvm.diagnostics.thresholds import max_khat

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["weights"]

_NUM_WORST = 10


def weights(case: Case) -> Finding:
    """Does the guide cover the posterior of each datum?

    Each draw of the guide has the weight p(x, z) / q(z | x). If the guide is too narrow or
    misses a mode, a few draws have nearly all the weight: the tail of the weights is heavy. Its
    shape k-hat tells before the effective sample size does. From 0.7 on, no practical number of
    draws is enough. A mode that no draw has reached shows in no weight.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling,
        arXiv:1507.02646.
        Yao, Vehtari, Simpson, Gelman (2018), Yes, but did it work?, arXiv:1802.02538.
    """
    found = case.weighted
    verdict, caption = found.verdict(), "k-hat of each datum"
    if not found.is_bound:
        caption += ", with the discriminator in place of a density"
    figure = plot_khat(found.khat, max_khat(found.num_samples))
    return Finding(verdict, found.summary(), {caption: figure}, _worst(found))


def _worst(found: LogEvidence) -> DataFrame | None:
    """The data with the largest k-hat, where there are several."""
    import pandas as pd

    khat = found.khat.flatten().nan_to_num(nan=torch.inf)
    if len(khat) < 2:
        return None
    order = khat.argsort(descending=True)[:_NUM_WORST]
    columns = {
        "datum": order,
        "k-hat": found.khat.flatten()[order],
        "effective draws": found.effective_sample_size.flatten()[order],
        "log p(x), nats": found.value.flatten()[order],
        "standard error": found.standard_error.flatten()[order],
    }
    return pd.DataFrame({name: values.tolist() for name, values in columns.items()})
