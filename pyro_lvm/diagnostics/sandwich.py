"""The two sides between which a semi-implicit guide's bound lies, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pyro_lvm.objectives import DSIVI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_sandwich"]

Program = Callable[..., Any]


def plot_sandwich(
    model: Program,
    guide: Program,
    *args: Any,
    num_mixing: Sequence[int] = (1, 3, 10, 30, 100, 300, 1000),
    num_particles: int = 100,
    chunk_mixing: int | None = None,
    **kwargs: Any,
) -> Figure:
    """Both sides of a guide's evidence lower bound, closing in as its mixing draws grow.

    Each point is a mean over data and draws of z, with two standard errors over the data.

    Args:
        model: with an explicit prior.
        guide: with mixing variables.
        args: of both programs; ``kwargs`` too.
        num_mixing: numbers of fresh draws, each at least one.
        num_particles: draws of z for each datum.
        chunk_mixing: fresh draws at a time; all of them if left out.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Raises:
        ProgramError: as :meth:`pyro_lvm.objectives.DSIVI.sandwich`.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         psi = pyro.sample("psi", dist.Normal(x / 2, 0.5), infer={"is_auxiliary": True})
        ...         pyro.sample("z", dist.Normal(psi, 0.5))
        >>> figure = plot_sandwich(model, guide, torch.ones(50), num_mixing=(1, 10, 100))
        >>> figure.axes[0].get_xlabel()
        'mixing draws J'
    """
    from matplotlib.figure import Figure

    sides = [
        DSIVI.sandwich(
            model,
            guide,
            *args,
            num_mixing=count,
            num_particles=num_particles,
            chunk_mixing=chunk_mixing,
            **kwargs,
        )
        for count in num_mixing
    ]
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for label, colour, values in zip(
        ("without the draw that made z", "with it: the bound"),
        ("tab:orange", "tab:blue"),
        ([upper for _, upper in sides], [lower for lower, _ in sides]),
        strict=True,
    ):
        each = torch.stack(values).flatten(1).double().cpu()  # (numbers, data)
        error = 2 * each.std(1, correction=0) / max(1, each.shape[1] - 1) ** 0.5
        mean = each.mean(1).numpy()
        axes.errorbar(num_mixing, mean, error.numpy(), label=label, color=colour, marker="o")
    axes.set(xscale="log", xlabel="mixing draws J", ylabel="evidence lower bound, nats per datum")
    axes.legend()
    return figure
