"""The two parts of a guide's gap as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_lvm.diagnostics.amortization import AmortizationGap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_amortization_gap"]

_MAX_BARS = 100


def plot_amortization_gap(gap: AmortizationGap) -> Figure:
    """Both gaps of each datum, and the ELBO while the parameters of each were optimised.

    Of more than 100 data every so many are shown, in the order of the whole gap. The curve at
    the right has to be flat at its end: a rise there belongs to the amortization gap.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from pyro_lvm.diagnostics import amortization_gap
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.3 * x, 0.5**0.5))
        >>> gap = amortization_gap(model, guide, torch.linspace(-2, 2, 9), num_steps=50)
        >>> figure = plot_amortization_gap(gap)
        >>> len(figure.axes[0].patches)  # two parts of nine data
        18
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(left, gap)
    right.plot(gap.history.cpu(), color="tab:blue", linewidth=1.0)
    start, end = gap.encoder.mean_log_weight.mean(), gap.local.mean_log_weight.mean()
    right.axhline(start.item(), color="tab:orange", linestyle="--", label="encoder")
    right.axhline(end.item(), color="0.4", linestyle=":", label="optimised")
    right.set(xlabel="step", ylabel="ELBO, nats per datum")
    right.legend()
    return figure


def _bars(axes: Axes, gap: AmortizationGap) -> None:
    order = gap.total.flatten().argsort(descending=True)
    shown = order[:: -(-len(order) // _MAX_BARS)]
    parts = gap.approximation, gap.amortization
    family, encoder = (part.flatten()[shown].cpu().numpy() for part in parts)
    places = range(len(shown))
    means = gap.summary()
    label = f"family: mean {means['approximation_gap']:.2g}"
    axes.bar(places, family, width=1.0, color="tab:blue", label=label)
    label = f"encoder: mean {means['amortization_gap']:.2g}"
    axes.bar(places, encoder, width=1.0, bottom=family.clip(min=0), color="tab:orange", label=label)
    axes.set(xlabel="data, by gap", ylabel="log p(x) less the ELBO, nats")
    axes.legend()
