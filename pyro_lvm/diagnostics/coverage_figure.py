"""Expected coverage as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.coverage import Coverage
from pyro_lvm.diagnostics.sbc_figure import draw_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_coverage"]


def plot_coverage(result: Coverage) -> Figure:
    """Share of simulations whose regions hold the truth, by level: below the diagonal is too sure.

    The band has 0.95 of all curves of an exact posterior, together. Curves that leave it are
    named, the worst five of them.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics import Simulations, coverage
        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)[:, None]
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> figure = plot_coverage(coverage(simulations))
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['z[0]']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    draw_curves(axes, result.curves)
    axes.set(xlabel="level of the region", ylabel="share that holds the truth", title="coverage")
    return figure
