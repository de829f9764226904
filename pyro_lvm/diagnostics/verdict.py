"""What a diagnostic found, in one line, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Status", "Verdict", "percent"]


class Status(StrEnum):
    """How a check came out; the last two found nothing, for or against.

    Example:
        >>> f"{Status.WARN}", Status("skip")
        ('warn', <Status.SKIP: 'skip'>)
    """

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    """It does not apply to these programs."""
    ERROR = "error"
    """It could not be run."""


@dataclass(frozen=True)
class Verdict:
    """One line of a report.

    Attributes:
        check: what was looked at.
        status: how it came out.
        finding: the figures, in a sentence.
        advice: what to do next; empty where nothing is to be done.

    Example:
        >>> print(Verdict("weights", Status.WARN, "k-hat is 0.8.", "Train on."))
        [warn] weights: k-hat is 0.8. Train on.
    """

    check: str
    status: Status
    finding: str
    advice: str = ""

    def __str__(self) -> str:
        return f"[{self.status}] {self.check}: {self.finding} {self.advice}".rstrip()


def percent(share: float) -> str:
    """A share as it stands in a finding.

    Example:
        >>> percent(1.0), percent(0.254), percent(0.005), percent(0.0)
        ('100 %', '25 %', '0.5 %', '0 %')
    """
    points = 100 * share
    return f"{points:.0f} %" if points >= 1 else f"{points:.2g} %"
