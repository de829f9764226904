"""Whether a spike posterior is as sure as it should be: intervals, reliability, proper scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.diagnostics.spikes import check_spikes
from pyro_lvm.errors import DataError, explain

__all__ = [
    "CountCoverage",
    "Reliability",
    "brier_score",
    "count_coverage",
    "reliability",
    "spike_log_score",
]


class CountCoverage(NamedTuple):
    """How often intervals of the spike count held the true count, for each cell.

    Attributes:
        closed: ``(cells,)`` for the interval from one quantile to the other, both within.
            Counts are whole, so a perfect posterior covers *at least* the level: with few
            spikes much more.
        randomised: ``(cells,)`` for intervals whose ends belong to them in the share that
            makes a perfect posterior cover *exactly* the level in the mean. Smaller means
            too sure, larger not sure enough.

    Example:
        A posterior that is sure of no spike, of cells with one in two windows and with none.

        >>> truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        >>> count_coverage(torch.zeros(100, 2, 2), truth, rate=1.0)
        CountCoverage(closed=tensor([0.5000, 1.0000]), randomised=tensor([0.4500, 0.9000]))
    """

    closed: Tensor
    randomised: Tensor


def count_coverage(
    draws: Tensor, truth: Tensor, rate: float, *, window: float = 1.0, level: float = 0.9
) -> CountCoverage:
    r"""Coverage of central posterior intervals of the spike count in windows of time.

    With F the posterior's distribution function of a window's count, the true count n is
    covered by the closed interval if :math:`F(n) \ge (1 - level) / 2` and
    :math:`F(n - 1) < (1 + level) / 2`. The randomised one covers it in the share of
    :math:`[F(n - 1), F(n)]` that lies between these two: the mean over the uniform variable
    of the randomised probability integral transform, taken exactly, so nothing is drawn.
    From Czado, Gneiting, Held (2009), Predictive model assessment for count data, Biometrics
    65, doi:10.1111/j.1541-0420.2009.01191.x, section 2.1.

    Args:
        draws: ``(num_samples, cells, frames)`` posterior draws; some hundreds for a level
            of 0.9.
        truth: ``(cells, frames)`` true counts, NaN = unknown; windows with such frames are
            left out.
        rate: frames a second, Hz.
        window: s, rounded to whole frames.
        level: nominal coverage.

    Returns:
        NaN for cells without a whole window.

    Raises:
        DataError: other shapes, or a window longer than the recording.

    Example:
        >>> truth = torch.bernoulli(torch.full((1, 20_000), 0.1))
        >>> draws = torch.bernoulli(torch.full((500, 1, 20_000), 0.1))
        >>> covered = count_coverage(draws, truth, rate=20.0)  # Binomial(20, 0.1): 0 to 4
        >>> covered.closed.round(decimals=2), covered.randomised.round(decimals=2)
        (tensor([0.9500]), tensor([0.8900]))
    """
    check_spikes(draws, truth)
    frames = max(1, round(window * rate))
    if frames > truth.shape[1]:
        hint = "Take a shorter window."
        found = f"{frames} frames"
        raise DataError(explain("window", f"at most {truth.shape[1]} frames", found, hint))
    true, drawn = _counts(truth, frames), _counts(draws, frames)
    below = (drawn < true).double().mean(0)  # F(n - 1), (cells, windows)
    upto = (drawn <= true).double().mean(0)  # F(n)
    low, high = (1 - level) / 2, (1 + level) / 2
    closed = ((upto >= low) & (below < high)).double()
    within = (upto.clamp(low, high) - below.clamp(low, high)) / (upto - below)
    randomised = within.where(upto > below, closed)
    known = ~true.isnan()
    covered = (part.where(known, torch.nan).nanmean(1).to(draws) for part in (closed, randomised))
    return CountCoverage(*covered)


def _counts(spikes: Tensor, frames: int) -> Tensor:  # (..., cells, windows)
    windows = spikes.shape[-1] // frames
    return spikes[..., : windows * frames].reshape(*spikes.shape[:-1], windows, frames).sum(-1)


class Reliability(NamedTuple):
    """Promised against actual frequency of spikes, by bins of the promise.

    Attributes:
        predicted: ``(num_bins,)`` mean probability of the frames of a bin, NaN in empty bins.
        observed: ``(num_bins,)`` share of them with a spike.
        frames: ``(num_bins,)`` how many there are.

    Example:
        >>> predicted, observed = torch.tensor([0.2, 0.7]), torch.tensor([0.2, 0.5])
        >>> curve = Reliability(predicted, observed, frames=torch.tensor([3, 1]))
        >>> curve.error
        tensor(0.0500)
    """

    predicted: Tensor
    observed: Tensor
    frames: Tensor

    @property
    def error(self) -> Tensor:
        """Expected calibration error: mean distance of the two, by frames."""
        gap = (self.predicted - self.observed).abs().nan_to_num()
        return (gap * self.frames).sum() / self.frames.sum()


def reliability(probabilities: Tensor, truth: Tensor, *, num_bins: int = 10) -> Reliability:
    """The reliability diagram of frame-by-frame spike probabilities, all cells together.

    From Niculescu-Mizil, Caruana (2005), Predicting good probabilities with supervised
    learning, ICML.

    Args:
        probabilities: ``(cells, frames)`` that there is a spike in a frame.
        truth: ``(cells, frames)`` true counts, NaN = unknown.
        num_bins: of equal width, from 0 to 1.

    Example:
        >>> curve = reliability(torch.tensor([[0.2, 0.2, 0.8, 0.8]]), torch.eye(2, 2).reshape(1, 4),
        ...     num_bins=2)
        >>> curve.predicted, curve.observed, curve.error
        (tensor([0.2000, 0.8000]), tensor([0.5000, 0.5000]), tensor(0.3000))
    """
    p, fired = _known(probabilities, truth)
    place = (p * num_bins).long().clamp(max=num_bins - 1)
    frames, promised, kept = (
        torch.bincount(place, weights, minlength=num_bins).to(p)
        for weights in (torch.ones_like(p), p, fired)
    )
    return Reliability(promised / frames, kept / frames, frames)


def brier_score(probabilities: Tensor, truth: Tensor) -> Tensor:  # ()
    """Mean squared distance of probability and outcome over frames; 0 is perfect.

    From Brier (1950), Verification of forecasts expressed in terms of probability. A proper
    score: it is least, in the mean, for the true probabilities.

    Args:
        probabilities: ``(cells, frames)`` that there is a spike in a frame.
        truth: ``(cells, frames)`` true counts, NaN = unknown.

    Example:
        >>> brier_score(torch.tensor([[0.2, 0.9]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.0250)
    """
    p, fired = _known(probabilities, truth)
    return (p - fired).square().mean()


def spike_log_score(probabilities: Tensor, truth: Tensor, *, clip: float = 1e-4) -> Tensor:  # ()
    """Mean log probability of what happened in a frame, nats; 0 is perfect.

    Frames count as independent: a posterior with correlations has a better score of whole
    trains, the guide's log-density at them.

    Args:
        probabilities: ``(cells, frames)`` that there is a spike in a frame.
        truth: ``(cells, frames)`` true counts, NaN = unknown.
        clip: probabilities are kept this far from 0 and 1, since shares of posterior draws
            reach both.

    Example:
        >>> spike_log_score(torch.tensor([[0.2, 0.9]]), torch.tensor([[0.0, 1.0]]))
        tensor(-0.1643)
    """
    p, fired = _known(probabilities, truth)
    p = p.clamp(clip, 1 - clip)
    return (fired * p.log() + (1 - fired) * (-p).log1p()).mean()


def _known(probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:  # both (frames,)
    check_spikes(probabilities, truth)
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        hint = "Pass the mean of (draws > 0), not of counts."
        raise DataError(explain("probabilities", "from 0 to 1", "others", hint))
    known = ~truth.isnan()
    return probabilities[known], (truth[known] > 0).to(probabilities)
