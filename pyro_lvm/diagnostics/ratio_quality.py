"""How far a discriminator's log-ratio can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.thresholds import MAX_CALIBRATION_ERROR
from pyro_lvm.diagnostics.verdict import Status, Verdict, percent
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.game import GameObjective
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO
from pyro_lvm.saturation import MAX_ACCURACY, MAX_LOGIT, accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RatioQuality", "plot_calibration", "quality_of_logits", "ratio_quality"]

Program = Callable[..., Any]

_SATURATED = (
    "Its ratio is not to be trusted: use contrast='adaptive', and judge by "
    "log_evidence(method='ais')."
)
_IGNORANT = (
    "The programs run ahead of it: raise num_discriminator_steps or discriminator_lr, or lower "
    "the programs' rate."
)


@dataclass(frozen=True)
class RatioQuality:
    """What a discriminator makes of fresh draws, as many of the guide as of the contrast.

    Calibration is in equal bins of the probability that it gives to "of the guide".

    Attributes:
        log_loss: ``(*plates)`` nats per draw. A discriminator that knows nothing has log 2.
        accuracy: ``(*plates)``, share of draws told right.
        logit: ``(*plates)`` nats, mean size of T at the guide's draws.
        largest_logit: ``(*plates)`` nats, of any draw.
        probability: ``(bins,)``, mean probability in each bin; NaN in an empty one.
        frequency: ``(bins,)``, share of draws there that are of the guide.
        count: ``(bins,)``, draws in each bin.

    Example:
        A discriminator that is sure of what it cannot know.

        >>> logits = torch.tensor([3.0, -3.0])
        >>> quality = quality_of_logits(logits, logits, num_bins=2)
        >>> quality.accuracy, quality.frequency
        (tensor(0.5000), tensor([0.5000, 0.5000]))
        >>> quality.verdict().status
        <Status.FAIL: 'fail'>
    """

    log_loss: Tensor
    accuracy: Tensor
    logit: Tensor
    largest_logit: Tensor
    probability: Tensor
    frequency: Tensor
    count: Tensor

    best_constant = log(2.0)
    """Log-loss of the best discriminator that looks at nothing, nats."""

    @property
    def calibration_error(self) -> Tensor:
        """Expected calibration error, a scalar from 0 to 1."""
        gap = (self.probability - self.frequency).abs().nan_to_num()
        return (self.count * gap).sum() / self.count.sum()

    @property
    def calibration_noise(self) -> Tensor:
        """The expected calibration error that so few draws give a calibrated discriminator."""
        p = self.probability.nan_to_num()
        deviation = (2 / torch.pi * self.count * p * (1 - p)).sqrt()  # mean of |Normal|
        return deviation.sum() / self.count.sum()

    @property
    def is_saturated(self) -> bool:
        """Whether it tells nearly all draws apart, or its logits are beyond what draws show."""
        return bool(self.accuracy.mean() > MAX_ACCURACY or self.logit.mean() > MAX_LOGIT)

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "discriminator_log_loss": self.log_loss.mean().item(),
            "discriminator_log_loss_of_constant": self.best_constant,
            "discriminator_accuracy": self.accuracy.mean().item(),
            "discriminator_calibration_error": self.calibration_error.item(),
            "discriminator_is_saturated": int(self.is_saturated),
        }

    def verdict(self) -> Verdict:
        """Whether its log-ratios can be trusted."""
        error, loss = self.calibration_error.item(), self.log_loss.mean().item()
        finding = (
            f"log-loss {loss:.3f} nats (one that looks at nothing: {self.best_constant:.3f}), "
            f"calibration error {error:.3f}; {percent(self.accuracy.mean().item())} of draws are "
            "told right."
        )
        if self.is_saturated:
            return Verdict("discriminator", Status.FAIL, f"saturated: {finding}", _SATURATED)
        if loss > self.best_constant:
            return Verdict("discriminator", Status.FAIL, finding, _IGNORANT)
        if error > MAX_CALIBRATION_ERROR + self.calibration_noise.item():
            return Verdict("discriminator", Status.WARN, finding, _IGNORANT)
        return Verdict("discriminator", Status.PASS, finding)


def ratio_quality(
    objective: Objective,
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    num_bins: int = 20,
    **kwargs: Any,
) -> RatioQuality:
    """Put the objective's discriminator to the test on fresh draws, without gradient.

    Use data that it was not trained on.

    A calibrated discriminator need not be a sharp one: its log-loss must also be low. Nor need it
    be right everywhere: calibration is an average over all draws of one logit, so that too much in
    one mode and too little in another may cancel. Where modes matter, compare their shares too.

    Args:
        objective: an adversarial objective.
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide.
        num_samples: draws per datum, of the guide and of the contrast.
        chunk_size: draws at a time; by default as many as bound the memory.
        num_bins: bins of the probability.

    Raises:
        ProgramError: the objective has no discriminator, or is a game of critics.

    Returns:
        Log-loss, accuracy and logits for each datum; calibration over all of them.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), *On calibration of modern neural networks*,
        arXiv:1706.04599, eq. 3 for the expected calibration error.

    Example:
        Here the guide is Normal(1, 1) and the prior Normal(0, 1): T(z) = z - 1/2.

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_lvm.objectives import AVB
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(torch.ones(1), 1.0).to_event(1))
        >>> class Exact(torch.nn.Module):
        ...     def forward(self, z, x):
        ...         return z[..., 0] - 0.5
        >>> _ = torch.manual_seed(0)
        >>> quality = ratio_quality(AVB(Exact()), model, guide, torch.zeros(5))
        >>> bool(quality.calibration_error < 2 * quality.calibration_noise), quality.is_saturated
        (True, False)
    """
    if not isinstance(objective, AdversarialObjective):
        raise _no_ratio(objective)
    chunks = Chunks(ELBO, model, guide, args, kwargs, num_samples, chunk_size, objective.ratio)
    logits = [
        objective.ratio.logits(drawn.values, drawn.model, drawn.guide, args, kwargs)
        for drawn in chunks
    ]
    real, fake = (torch.cat(kind) for kind in zip(*logits, strict=True))
    return quality_of_logits(real, fake, num_bins)


def quality_of_logits(real: Tensor, fake: Tensor, num_bins: int) -> RatioQuality:
    """From logits of draws that should be told apart.

    Args:
        real: of the guide, ``(num_samples, *plates)`` nats.
        fake: of the contrast, likewise.
        num_bins: bins of the probability.

    Returns:
        Log-loss, accuracy and logits ``(*plates)``; calibration ``(num_bins,)`` over all of them.

    Example:
        The exact log-ratio of N(1, 1) to N(0, 1) at draws of each.

        >>> real, fake = 1 + torch.randn(20_000), torch.randn(20_000)
        >>> quality = quality_of_logits(real - 0.5, fake - 0.5, num_bins=10)
        >>> quality.accuracy, bool(quality.calibration_error < 2 * quality.calibration_noise)
        (tensor(0.6890), True)
    """
    probability = torch.cat([real, fake]).sigmoid().flatten()
    label = torch.cat([torch.ones_like(real), torch.zeros_like(fake)]).flatten()
    place = (probability * num_bins).long().clamp(max=num_bins - 1)
    count, sum_p, sum_label = (
        probability.new_zeros(num_bins).index_add(0, place, values)
        for values in (torch.ones_like(label), probability, label)
    )
    return RatioQuality(
        log_loss=0.5 * (softplus(-real).mean(0) + softplus(fake).mean(0)),
        accuracy=accuracy(real, fake, 0),
        logit=real.abs().mean(0),
        largest_logit=torch.cat([real, fake]).abs().amax(0),
        probability=sum_p / count,
        frequency=sum_label / count,
        count=count,
    )


def _no_ratio(objective: Objective) -> ProgramError:
    name = type(objective).__name__
    if isinstance(objective, GameObjective):
        expected, found = "one with a ratio of guide to prior", f"{name}, a game of critics"
        hint = "Judge the model by log_evidence(method='ais'), a critic by quality_of_logits."
    else:
        expected, found = "one with a discriminator", name
        hint = "Pass AVB, IWAVB, AAE or IWAAE, as trained."
    return ProgramError(explain("objective", expected, found, hint))


def plot_calibration(quality: RatioQuality) -> Figure:
    """Reliability diagram: how often draws are the guide's where that has such a probability.

    Points on the diagonal are calibrated; the bars are two standard errors. Below stands how
    many draws have which probability.

    Returns:
        The figure, not shown and not known to ``pyplot``.

    Example:
        >>> real, fake = 1 + torch.randn(2000), torch.randn(2000)
        >>> figure = plot_calibration(quality_of_logits(real - 0.5, fake - 0.5, num_bins=10))
        >>> figure.axes[0].get_ylabel()
        "share that are the guide's"
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    seen = quality.count > 0
    p, frequency, count = (
        values[seen].cpu().numpy()
        for values in (quality.probability, quality.frequency, quality.count)
    )
    error = 2 * (p * (1 - p) / count) ** 0.5
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="calibrated")
    axes.errorbar(p, frequency, error, color="tab:blue", marker="o", markersize=3, linewidth=0.8)
    axes.set(ylabel="share that are the guide's", title=_title(quality), ylim=(-0.05, 1.05))
    axes.legend()
    below.bar(p, count, width=0.8 / len(quality.count), color="tab:blue", alpha=0.8)
    below.set(xlabel="probability that a draw is the guide's", ylabel="draws", yscale="log")
    below.tick_params(axis="y", which="minor", labelleft=False)
    return figure


def _title(quality: RatioQuality) -> str:
    loss, error = quality.log_loss.mean().item(), quality.calibration_error.item()
    first = f"log-loss {loss:.3f} nats (constant: {quality.best_constant:.3f})"
    warning = "\nsaturated: the ratio is not to be trusted" if quality.is_saturated else ""
    return f"{first}\nexpected calibration error {error:.3f}{warning}"
