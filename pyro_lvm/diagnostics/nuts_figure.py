"""A guide beside NUTS as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.nuts_differences import NutsComparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_nuts_comparison"]


def plot_nuts_comparison(found: NutsComparison) -> Figure:
    """Differences of means and of standard deviations of all scalars, with two standard errors.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics.nuts_differences import Difference
        >>> off = Difference(torch.tensor([0.1, -0.5]), torch.tensor([0.1, 0.1]))
        >>> ones = torch.ones(2)
        >>> found = NutsComparison(("z[0]", "z[1]"), off, off, {0.5: off}, ones, 100 * ones, 0)
        >>> plot_nuts_comparison(found).axes[1].get_xlabel()
        'log sd of guide / sd of NUTS'
    """
    from matplotlib.figure import Figure

    places = range(len(found.names))
    height = min(12.0, max(2.5, 0.25 * len(found.names) + 1))
    figure = Figure(figsize=(8.0, height), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    labels = "mean of guide less NUTS, posterior sd", "log sd of guide / sd of NUTS"
    for panel, difference, label in zip(axes, (found.mean, found.log_sd), labels, strict=True):
        value, error = (part.cpu().numpy() for part in difference)
        panel.errorbar(value, places, xerr=2 * error, fmt="o", markersize=4, color="tab:blue")
        panel.axvline(0.0, color="0.6", linestyle="--")
        panel.set(xlabel=label)
    axes[0].set_yticks(list(places), found.names)
    axes[0].invert_yaxis()
    return figure
