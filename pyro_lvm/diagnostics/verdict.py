"""What a diagnostic found, in one line, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Status", "Verdict"]


class Status(StrEnum):
    """How a check came out; the last two found nothing, for or against."""

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
