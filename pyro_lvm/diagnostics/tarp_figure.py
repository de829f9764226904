"""Tests of accuracy with random points, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.sbc_figure import draw_curves
from pyro_lvm.diagnostics.tarp import TARP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_tarp"]


def plot_tarp(result: TARP) -> Figure:
    """Share of simulations whose balls hold the truth, by the share of draws that they hold.

    The band has 0.95 of the curves of an exact posterior.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics import Simulations, tarp
        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks}, num_draws=9)
        >>> plot_tarp(tarp(simulations)).axes[0].get_xlabel()
        'share of draws in the ball'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    draw_curves(axes, result.curves)
    axes.set(
        xlabel="share of draws in the ball",
        ylabel="share of simulations with the truth in it",
        title="balls around random points",
    )
    return figure
