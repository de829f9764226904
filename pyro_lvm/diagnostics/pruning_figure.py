"""Pruned weights as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.pruning import PruningReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_pruning"]

_ENDS = (-12.0, 12.0)  # weights beyond are shown in the outermost bars


def plot_pruning(report: PruningReport) -> Figure:
    """Log alpha of the weights of each site, beside the line above which they are pruned.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> report = PruningReport({"w1": torch.tensor([-3.0, 1.0, 5.0, 40.0])}, 3.0)
        >>> [text.get_text() for text in plot_pruning(report).axes[0].get_legend().get_texts()]
        ['w1: 2 of 4 kept', 'pruned above 3']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    low, high = _ENDS
    for name, values in report.log_alpha.items():
        kept, total = report.counts[name]
        shown = values.flatten().clamp(low, high).cpu().numpy()
        label = f"{name}: {kept} of {total} kept"
        axes.hist(shown, bins=60, range=_ENDS, histtype="step", density=True, label=label)
    line = f"pruned above {report.threshold:g}"
    axes.axvline(report.threshold, color="0.6", linestyle="--", label=line)
    axes.set(xlabel=r"$\log\alpha = \log(s^2 / m^2)$", ylabel="share of the weights, density")
    axes.set_title(f"compression {report.compression:.1f}")
    axes.legend()
    return figure
