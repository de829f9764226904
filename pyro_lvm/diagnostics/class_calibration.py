"""Whether a classifier is right as often as it promises."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import check_size

__all__ = ["ClassCalibration", "class_calibration"]

_CHECK = "class calibration"
_SURE = "Average over draws of the weights, over an ensemble, or take a wider posterior."
_UNSURE = "Check the prior's scale; a posterior wider than the data ask for predicts so."
_ROUNDING = 5e-5  # of probabilities read from a file with four decimals


@dataclass(frozen=True)
class ClassCalibration:
    """Promised against actual frequency of the predicted class, by bins of the promise.

    Attributes:
        probability: ``(bins,)`` mean probability of the predicted class, NaN in empty bins.
        frequency: ``(bins,)`` share of the rows for which it was right.
        count: ``(bins,)`` rows.
        variance: ``(bins,)`` of the number that are right, if each is with the probability
            that was promised.
        log_likelihood: mean log probability of the true class, nats.
        brier: mean squared distance of the probabilities from the true class, 0 to 2.

    Example:
        Right for half of the rows, where 0.9 was promised.

        >>> probabilities = torch.tensor([[0.9, 0.1]]).repeat(40, 1)
        >>> print(class_calibration(probabilities, torch.tensor([0, 1]).repeat(20)).verdict())
        [fail] class calibration: ECE 0.400, by chance 0.038; promised 0.900, right 0.500. ...
    """

    probability: Tensor
    frequency: Tensor
    count: Tensor
    variance: Tensor
    log_likelihood: float
    brier: float

    @property
    def accuracy(self) -> float:
        """Share of the rows whose predicted class is right."""
        return self._mean(self.frequency)

    @property
    def confidence(self) -> float:
        """Mean probability of the predicted class."""
        return self._mean(self.probability)

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of promise and frequency, by rows.

        From few rows it is too high: see :attr:`error_by_chance`.
        """
        return self._mean((self.probability - self.frequency).abs())

    @property
    def error_by_chance(self) -> float:
        """Mean of :attr:`error` over classes drawn with the promised probabilities.

        By the Normal approximation in each bin, ``E|N(0, v)| = sqrt(2 v / pi)``.
        """
        return float((2 / pi * self.variance).sqrt().sum() / self.count.sum())

    @property
    def deviation_by_chance(self) -> float:
        """Standard deviation of :attr:`error` over such classes."""
        return float(((1 - 2 / pi) * self.variance).sum().sqrt() / self.count.sum())

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "accuracy": self.accuracy,
            "confidence": self.confidence,
            "log_likelihood": self.log_likelihood,
            "brier": self.brier,
            "error": self.error,
            "error_by_chance": self.error_by_chance,
        }

    def verdict(self) -> Verdict:
        """Warns above three standard deviations of chance, fails where 0.1 is left beside it."""
        finding = (
            f"ECE {self.error:.3f}, by chance {self.error_by_chance:.3f}; promised "
            f"{self.confidence:.3f}, right {self.accuracy:.3f}."
        )
        excess = self.error - self.error_by_chance
        if excess <= 3 * self.deviation_by_chance:
            return Verdict(_CHECK, Status.PASS, finding)
        advice = _SURE if self.confidence > self.accuracy else _UNSURE
        return Verdict(_CHECK, Status.FAIL if excess > 0.1 else Status.WARN, finding, advice)

    def _mean(self, values: Tensor) -> float:
        return float((self.count * values).nansum() / self.count.sum())


def class_calibration(
    probabilities: Tensor, labels: Tensor, *, num_bins: int = 15
) -> ClassCalibration:
    """Calibration of the predicted class, and two proper scores of all probabilities.

    Expected calibration error takes the absolute value of noise in every bin, so of few rows
    it is above 0 for a perfect classifier too: compare it with what chance alone gives,
    and classifiers with each other on the same rows only.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), *On calibration of modern neural networks*,
        arXiv:1706.04599, eq. 3.
        Kumar, Liang, Ma (2019), *Verified uncertainty calibration*, arXiv:1909.10155, section
        4, for the bias.

    Args:
        probabilities: ``(B, C)`` of the classes of held-out rows, such as
            ``model.outcome(x, draws).probs.mean(0)``.
        labels: ``(B,)`` true classes.
        num_bins: of equal width, from 0 to 1, each with its upper end.

    Raises:
        DataError: negative numbers; rows that do not sum to 1, by more than the rounding of as many
            numbers to the dtype or to four decimals; labels of another shape or of no class.
        ProgramError: no bins.

    Example:
        >>> probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
        >>> found = class_calibration(probabilities, torch.tensor([0, 1, 1, 0]), num_bins=2)
        >>> found.probability, found.frequency
        (tensor([0.5000, 0.7667]), tensor([1.0000, 0.6667]))
        >>> round(found.error, 3), round(found.error_by_chance, 3)
        (0.2, 0.245)
    """
    _check(probabilities, labels)
    top, predicted = probabilities.max(1)
    inner = torch.arange(1, check_size("num_bins", num_bins)).to(top) / num_bins
    member = one_hot(torch.bucketize(top, inner), num_bins).to(top)  # (B, bins)
    right = (predicted == labels).to(top)
    count = member.sum(0)
    truth = one_hot(labels, probabilities.shape[1])
    return ClassCalibration(
        probability=top @ member / count,
        frequency=right @ member / count,
        count=count,
        variance=(top * (1 - top)) @ member,
        log_likelihood=float(probabilities[truth.bool()].log().mean()),
        brier=float((probabilities - truth).square().sum(1).mean()),
    )


def _check(probabilities: Tensor, labels: Tensor) -> None:
    shape = tuple(probabilities.shape)
    if len(shape) != 2 or not probabilities.is_floating_point():
        hint = "Average over draws first: model.outcome(x, draws).probs.mean(0)."
        found = f"{probabilities.dtype} of shape {shape}"
        raise DataError(explain("probabilities", "floats of shape (rows, classes)", found, hint))
    if bool((probabilities < 0).any()):
        hint = "Pass probabilities, not log-probabilities: log_probabilities.exp()."
        least = f"{float(probabilities.min()):.2g}"
        raise DataError(explain("probabilities", "none below 0", least, hint))
    off = (probabilities.sum(1) - 1).abs()
    if not bool((off <= shape[1] * max(_ROUNDING, torch.finfo(off.dtype).eps)).all()):
        hint = "Pass probabilities, not logits: logits.softmax(1)."
        found = f"a row that is off by {float(off.max()):.2g}"
        raise DataError(explain("probabilities", "each row summing to 1", found, hint))
    if labels.shape != shape[:1] or not bool(((labels >= 0) & (labels < shape[1])).all()):
        expected = f"shape ({shape[0]},) of classes 0 to {shape[1] - 1}"
        hint = "Pass the true classes of the same rows, as integers."
        raise DataError(explain("labels", expected, f"shape {tuple(labels.shape)}", hint))
