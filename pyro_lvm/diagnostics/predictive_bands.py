"""What a prediction is unsure of: the noise of outcomes, and the weights of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyro.distributions import TorchDistribution

__all__ = ["PredictiveBands", "plot_predictive_bands", "predictive_bands"]

_BLUE = "tab:blue"


@dataclass(frozen=True)
class PredictiveBands:
    """Moments of predicted outcomes, ``(B,)`` each.

    Attributes:
        mean: of the outcome.
        aleatoric: standard deviation that is left if the latents are known: the root of the mean
            variance of the outcome given them.
        epistemic: standard deviation of the outcome's mean over the latents: what more data
            would lower.

    Example:
        >>> import torch
        >>> aleatoric, epistemic = torch.tensor([3.0, 3.0]), torch.tensor([0.0, 4.0])
        >>> bands = PredictiveBands(torch.zeros(2), aleatoric, epistemic)
        >>> bands.total
        tensor([3., 5.])
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @property
    def total(self) -> Tensor:
        """Standard deviation of the outcome, ``(B,)``: its square is the sum of theirs."""
        return (self.aleatoric.square() + self.epistemic.square()).sqrt()

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name: root mean squares over the rows."""
        parts = {"aleatoric": self.aleatoric, "epistemic": self.epistemic, "total": self.total}
        return {name: part.square().mean().sqrt().item() for name, part in parts.items()}


def predictive_bands(outcome: TorchDistribution) -> PredictiveBands:
    """By the law of total variance, from the outcome given each draw of the latents.

    Args:
        outcome: batch ``(S, B)`` of S draws, S >= 2, at B rows:
            ``model.outcome(x, sample_posterior(model, guide, *data))`` of
            :class:`~pyro_lvm.models.BayesianMLP`.

    References:
        Depeweg, Hernández-Lobato, Doshi-Velez, Udluft (2018), *Decomposition of uncertainty in
        Bayesian deep learning*, arXiv:1710.07283, eq. 8.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> bands = predictive_bands(Normal(torch.tensor([[0.0], [2.0]]), 0.5))
        >>> bands.mean, bands.aleatoric, bands.epistemic
        (tensor([1.]), tensor([0.5000]), tensor([1.]))
    """
    means = outcome.mean.detach()
    aleatoric = outcome.variance.detach().mean(0).sqrt()
    return PredictiveBands(means.mean(0), aleatoric, means.std(0, correction=0))


def plot_predictive_bands(
    x: Tensor, bands: PredictiveBands, data: tuple[Tensor, Tensor] | None = None
) -> Figure:
    """Mean, and two standard deviations of the mean and of outcomes, over one covariate.

    Args:
        x: ``(B,)``, in any order.
        bands: at these rows.
        data: covariates and outcomes to show, ``(N,)`` each.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 20)
        >>> bands = PredictiveBands(x, 0.1 + 0 * x, x.abs())
        >>> figure = plot_predictive_bands(x, bands, (x, x))
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['outcome, 2 sd', 'its mean, 2 sd (epistemic)', 'mean', 'data']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    order = x.argsort()
    shown, mean = x[order].cpu(), bands.mean[order].cpu()
    for sd, alpha, label in (
        (bands.total, 0.15, "outcome, 2 sd"),
        (bands.epistemic, 0.35, "its mean, 2 sd (epistemic)"),
    ):
        reach = 2 * sd[order].cpu()
        axes.fill_between(shown, mean - reach, mean + reach, color=_BLUE, alpha=alpha, label=label)
    axes.plot(shown, mean, color=_BLUE, label="mean")
    if data is not None:
        axes.plot(data[0].cpu(), data[1].cpu(), "k.", markersize=4, label="data")
    axes.set(xlabel="x", ylabel="y")
    axes.legend()
    return figure
