"""Both sides of the evidence as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.bidirectional import EvidenceSandwich

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_evidence_sandwich"]

_MAX_BARS = 100


def plot_evidence_sandwich(sandwich: EvidenceSandwich) -> Figure:
    """The two sides of each datum, and how many data have which gap.

    Of more than 100 data every so many are shown, in the order of their evidence.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> sides = torch.tensor([-3.0, -2.0]), torch.tensor([-2.9, -2.0])
        >>> none = torch.zeros(2)
        >>> sandwich = EvidenceSandwich(sides[0], none, sides[1], none, num_samples=8)
        >>> plot_evidence_sandwich(sandwich).axes[1].get_title()
        'mean gap 0.05 ± 0.05 nats'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = (sandwich.lower + sandwich.upper).flatten().argsort()
    shown = order[:: -(-len(order) // _MAX_BARS)]
    sides = sandwich.lower, sandwich.upper
    lower, upper = (side.flatten()[shown].cpu().numpy() for side in sides)
    places = range(len(shown))
    left.vlines(places, lower, upper, color="0.6", linewidth=1.0)
    left.plot(places, upper, "v", color="tab:orange", markersize=4, label="from above")
    left.plot(places, lower, "^", color="tab:blue", markersize=4, label="from below")
    left.set(xlabel="data, by evidence", ylabel="log p(x), nats")
    left.legend()
    gap = sandwich.gap.flatten().cpu()
    right.hist(gap[gap.isfinite()].numpy(), bins=30, color="tab:blue", alpha=0.8)
    right.axvline(0.0, color="0.6", linestyle="--")
    title = f"mean gap {gap.mean():.2g} ± {sandwich.gap_error:.1g} nats"
    right.set(xlabel="gap, nats", ylabel="number of data", title=title)
    return figure
