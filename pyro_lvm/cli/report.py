"""What a run leaves to look at: figures, and posterior.nc for ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.cli import figures
from pyro_lvm.cli.runs import Plan, Run
from pyro_lvm.cli.writing import save_container
from pyro_lvm.diagnostics import (
    plot_calibration,
    plot_collapse,
    plot_khat,
    ratio_quality,
    sample_posterior,
    to_inference_data,
)

__all__ = ["report", "write_curves"]

_QUANTITIES = {
    "loss": "training loss (nats per datum)",
    "bound": "held-out bound or estimate (nats per datum)",
    "ess": "ESS (share of draws)",
    "khat": "k-hat (median over data)",
}


def report(run: Run, plan: Plan, folder: Path) -> None:
    """Write posterior.nc and the figures of one run to ``folder``.

    Data whose rows are no pictures get no reconstructions and no samples; an objective without
    discriminator no calibration.
    """
    test = plan.test.to(next(run.model.parameters()).device)
    pyro.set_rng_seed(0)
    _write_posterior(run, plan, test, folder / "posterior.nc")
    drawings = {
        "collapse": plot_collapse(run.evaluation.collapse),
        "khat": _khat(run),
        "latent_pairs": _latent_pairs(run, test),
    }
    if isinstance(run.objective, AdversarialObjective):
        drawings["calibration"] = _calibration(run, test)
    if len(plan.data.feature_shape) == 2:
        drawings |= _pictures(run, test, plan.data.feature_shape)
    for name, figure in drawings.items():
        figures.save_figure(figure, folder / "figures" / f"{name}.png")


def write_curves(runs: Sequence[Run], folder: Path) -> None:
    """One figure with the training curves of all ``runs``."""
    curves = {
        title: {run.label: run.curve(quantity) for run in runs}
        for quantity, title in _QUANTITIES.items()
    }
    present = {title: lines for title, lines in curves.items() if any(s for s, _ in lines.values())}
    figures.save_figure(figures.training_curves(present), folder / "training_curves.png")


def _write_posterior(run: Run, plan: Plan, test: Tensor, path: Path) -> None:
    sizes = plan.config.evaluation
    container = to_inference_data(
        run.model,
        run.guide,
        test[: sizes.posterior_data],
        num_samples=sizes.posterior_samples,
        objective=run.objective,
        seed=0,
    )
    save_container(container, path)


def _khat(run: Run) -> Figure:
    figure = plot_khat(run.evaluation.khat)
    if run.evaluation.weights_are_estimates:
        figure.suptitle("weights by the discriminator", fontsize=10)
    return figure


def _calibration(run: Run, test: Tensor) -> Figure:
    quality = ratio_quality(run.objective, run.model, run.guide, test, num_samples=100)
    return plot_calibration(quality)


def _latent_pairs(run: Run, test: Tensor) -> Figure:
    sites = sample_posterior(run.model, run.guide, test, num_samples=50, device="cpu")
    latents = {name: draws.reshape(50, len(test), -1) for name, draws in sites.items()}
    names = [f"{name}[{i}]" for name, draws in latents.items() for i in range(draws.shape[2])]
    return figures.latent_pairs(torch.cat(list(latents.values()), 2), names)


def _pictures(run: Run, test: Tensor, shape: tuple[int, ...]) -> dict[str, Figure]:
    shown = test[:12]
    posterior = poutine.replay(run.model, poutine.trace(run.guide).get_trace(shown))
    means = _means(posterior, shown).reshape(-1, *shape)
    prior = _means(poutine.uncondition(run.model), test[:60]).reshape(-1, *shape)
    return {
        "reconstructions": figures.reconstructions(shown.reshape(-1, *shape), means),
        "prior_samples": figures.image_grid(prior, "mean pictures of draws from the prior"),
    }


@torch.no_grad()
def _means(model: Any, data: Tensor) -> Tensor:
    """Mean of the observed site for each datum, given one draw of the latents, ``(N, D)``."""
    nodes = poutine.trace(model).get_trace(data).nodes.values()
    means: list[Tensor] = [
        node["fn"].mean
        for node in nodes
        if node["type"] == "sample" and (node["is_observed"] or node["infer"].get("was_observed"))
    ]
    return means[0]
