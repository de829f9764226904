"""The two sides between which a semi-implicit guide's bound lies, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
    for side, label, colour in (
        (1, "without the draw that made z", "tab:orange"),
        (0, "with it: the bound", "tab:blue"),
    ):
        mean, error = _mean_and_error([pair[side] for pair in sides])
        reach = 2 * error.numpy()
        axes.errorbar(num_mixing, mean.numpy(), reach, label=label, color=colour, marker="o")
    axes.set(xscale="log", xlabel="mixing draws J", ylabel="evidence lower bound, nats per datum")
    axes.legend()
    return figure


def _mean_and_error(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Over data: of each number of draws, the mean and its standard error."""
    each = torch.stack(values).flatten(1).double().cpu()  # (numbers, data)
    error = each.std(1, correction=0) / max(1, each.shape[1] - 1) ** 0.5
    return each.mean(1), error
