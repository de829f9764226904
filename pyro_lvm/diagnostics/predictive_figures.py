"""Predictive checks as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.loo_pit import LooPit
from pyro_lvm.diagnostics.predictive_checks import PredictiveCheck
from pyro_lvm.diagnostics.sbc_figure import draw_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_loo_pit", "plot_predictive_check"]


def plot_loo_pit(found: LooPit) -> Figure:
    """ECDF less the uniform one of each site's values, with the band of 0.95 of whole curves.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> values, khat = {"x": torch.rand(50)}, {"x": torch.zeros(50)}
        >>> plot_loo_pit(LooPit(values, khat, {"x": 0}, 100)).axes[0].get_title()
        'x'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(found.values), 3.6), layout="constrained")
    panels = figure.subplots(1, len(found.values), squeeze=False)[0]
    for axes, (name, curves) in zip(panels, found.curves.items(), strict=True):
        draw_curves(axes, curves, difference=True)
        axes.set(xlabel="LOO-PIT", ylabel="ECDF difference", title=name)
    return figure


def plot_predictive_check(found: PredictiveCheck) -> Figure:
    """Each statistic of data drawn anew as a histogram, with that of the data as a line.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> found = PredictiveCheck({"x: mean": torch.tensor(0.5)}, {"x: mean": torch.rand(9)})
        >>> plot_predictive_check(found).axes[0].get_xlabel()
        'x: mean'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(found.observed), 2.6), layout="constrained")
    panels = figure.subplots(1, len(found.observed), squeeze=False)[0]
    for axes, (name, p_value) in zip(panels, found.p_values.items(), strict=True):
        axes.hist(found.replicated[name].cpu().numpy(), bins=30, color="tab:blue", alpha=0.8)
        axes.axvline(found.observed[name].item(), color="tab:red")
        axes.set(xlabel=name, yticks=[], title=f"p = {p_value:.2g}")
    return figure
