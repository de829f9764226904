"""A classifier's promises as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.class_calibration import ClassCalibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_class_calibration"]


def plot_class_calibration(calibration: ClassCalibration) -> Figure:
    """How often the predicted class is right, by what was promised: the reliability diagram.

    Bars reach two standard deviations of chance to either side of the promise: a calibrated
    classifier has 95 % of its dots within.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics import class_calibration
        >>> found = class_calibration(torch.tensor([[0.8, 0.2]] * 5), torch.tensor([0, 0, 0, 1, 1]))
        >>> plot_class_calibration(found).axes[0].get_title()
        'ECE 0.200, by chance 0.143'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    shown = calibration.count > 0
    probability = calibration.probability[shown].cpu()
    spread = (2 * calibration.variance.sqrt() / calibration.count)[shown].cpu()
    axes.plot([0, 1], [0, 1], color="0.7")
    axes.errorbar(probability, probability, spread, fmt="none", color="0.6", label="by chance")
    axes.plot(probability, calibration.frequency[shown].cpu(), "o", color="tab:blue", label="found")
    axes.set(xlabel="promised probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"ECE {calibration.error:.3f}, by chance {calibration.error_by_chance:.3f}")
    axes.legend()
    return figure
