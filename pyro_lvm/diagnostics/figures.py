"""Pictures of diagnostics; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pyro_lvm.diagnostics.thresholds import MAX_KHAT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_khat"]


def plot_khat(khat: Tensor, limit: float = MAX_KHAT) -> Figure:
    """Histogram of k-hat over data, with the line above which weights fail.

    Args:
        khat: any shape, as :func:`pyro_lvm.diagnostics.pareto_khat` gives it. Values
            that are not finite are counted in the title, ``inf`` as above the line.
        limit: where the line is; few draws bear less than 0.7.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> figure = plot_khat(torch.tensor([0.1, 0.2, 0.9, float("inf")]))
        >>> figure.axes[0].get_title()
        'k-hat above 0.7: 2 of 4 (50 %); not finite: 1'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    khat = khat.detach().flatten().cpu()
    finite = khat[khat.isfinite()]
    axes.hist(finite.numpy(), bins=_bins(finite, limit), color="tab:blue", alpha=0.8)
    axes.axvline(limit, color="tab:red", linestyle="--", label=f"{limit:.2g}: unreliable above")
    axes.set(
        xlabel="Pareto k-hat of the importance weights",
        ylabel="number of data",
        title=_title(khat, limit),
    )
    axes.legend()
    return figure


def _bins(finite: Tensor, limit: float) -> list[float]:
    """Edges 0.05 wide from the line on, so that no bar straddles it."""
    low = min(0.0, finite.min().item()) if len(finite) else 0.0
    high = max(1.0, finite.max().item()) if len(finite) else 1.0
    below, above = (int(abs(limit - end) / 0.05) + 1 for end in (low, high))
    return [limit + 0.05 * i for i in range(-below, above + 1)]


def _title(khat: Tensor, limit: float) -> str:
    bad = int((khat > limit).sum())
    share = f"{bad / max(1, len(khat)):.0%}".replace("%", " %")
    infinite = int((~khat.isfinite()).sum())
    rest = f"; not finite: {infinite}" if infinite else ""
    return f"k-hat above {limit:.2g}: {bad} of {len(khat)} ({share}){rest}"
