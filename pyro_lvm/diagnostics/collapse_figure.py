"""Posterior collapse as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.collapse import CollapseReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_collapse"]


def plot_collapse(report: CollapseReport) -> Figure:
    """KL of each layer, and the activity of all units beside the line above which they are active.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> report = CollapseReport({"z": torch.tensor(2.0)}, {"z": torch.tensor([0.5, 0.0])}, 0.01)
        >>> [text.get_text() for text in plot_collapse(report).axes[1].get_legend().get_texts()]
        ['z: 1 of 2 active', 'active above 0.01']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(list(report.kl), [kl.item() for kl in report.kl.values()], color="tab:blue", alpha=0.8)
    left.set(xlabel="latent site", ylabel="KL, nats per datum")
    for name, values in report.activity.items():
        ranked = values.flatten().sort(descending=True).values.clamp(min=1e-6).cpu()
        label = f"{name}: {int(report.active[name].sum())} of {len(ranked)} active"
        right.plot(range(1, len(ranked) + 1), ranked, marker="o", markersize=3, label=label)
    right.axhline(report.threshold, color="0.6", linestyle="--", label=_threshold(report))
    right.set(xlabel="units, by activity", ylabel="variance of the mean over data", yscale="log")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    return figure


def _threshold(report: CollapseReport) -> str:
    return f"active above {report.threshold:g}"
