"""Ranks, and their ECDF against its band, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyro_lvm.diagnostics.sbc import SBC
from pyro_lvm.diagnostics.sbc_curves import Curves
from pyro_lvm.nn import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "plot_sbc"]

_BAND = "0.8"
_NUM_BARS = 20
_NUM_NAMED = 5


def plot_sbc(result: SBC, quantity: str | None = None) -> Figure:
    """Histogram of the ranks of one quantity, beside the ECDF differences of them all.

    Left the band has 0.95 of the bars of an exact posterior, each by itself; right 0.95 of all
    curves together. Curves that leave the band are named, the worst five of them.

    Args:
        result: of :func:`~pyro_lvm.diagnostics.sbc`.
        quantity: one of ``result.labels``; the worst if left out.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Raises:
        ProgramError: there is no such quantity.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics import Simulations, sbc
        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)[:, None]
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> plot_sbc(sbc(simulations)).axes[0].get_title()
        'z[0]: draws too narrow'
    """
    from matplotlib.figure import Figure

    if quantity is not None:
        check_choice("quantity", quantity, result.labels)
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    column = result.worst if quantity is None else result.labels.index(quantity)
    _draw_histogram(left, result, column)
    draw_curves(right, result.curves, difference=True)
    right.set(xlabel="rank / (L + 1)", ylabel="ECDF difference", title="all quantities")
    return figure


def _draw_histogram(axes: Axes, result: SBC, column: int) -> None:
    from scipy.stats import binom  # type: ignore[import-untyped]

    total, num_ranks = len(result.ranks), result.num_draws + 1
    edges = np.linspace(0, num_ranks, min(_NUM_BARS, num_ranks) + 1).round()
    low, high = binom.ppf([[0.025], [0.975]], total, np.diff(edges) / num_ranks)
    band = [*low, low[-1]], [*high, high[-1]]
    axes.fill_between(edges, *band, step="post", color=_BAND, zorder=0.5, linewidth=0.0)
    axes.hist(result.ranks[:, column].numpy(), bins=list(edges), color="tab:blue", alpha=0.8)
    label = result.labels[column]
    title = f"{label}: draws {result.shape(column)}" if label in result.curves.off else label
    axes.set(xlabel=f"draws below the truth, of {num_ranks - 1}", ylabel="simulations", title=title)


def draw_curves(axes: Axes, curves: Curves, difference: bool = False) -> None:
    """Shares against promised ones, or their differences, with the simultaneous band."""
    promised = curves.promised.numpy()
    base = promised if difference else np.zeros_like(promised)
    low, high = (edge.numpy() - base for edge in curves.band())
    axes.fill_between(promised, low, high, color=_BAND, zorder=0.5, linewidth=0.0)
    axes.plot(promised, promised - base, color="0.5", linestyle="--", linewidth=1.0)
    shares = curves.shares.T.numpy() - base
    named = sorted(curves.off, key=lambda label: -curves.errors[curves.labels.index(label)])
    for label, share in zip(curves.labels, shares, strict=True):
        if label in named[:_NUM_NAMED]:
            axes.plot(promised, share, linewidth=1.6, label=label)
        else:
            axes.plot(promised, share, color="tab:blue", alpha=0.4, linewidth=0.8)
    if named:
        axes.legend(fontsize="small")
