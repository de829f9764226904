"""Shares of simulations against the shares that an exact posterior has, with a test of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_lvm.diagnostics.sbc_bands import simultaneous_band, uniformity_p_values
from pyro_lvm.diagnostics.thresholds import MAX_TOTAL_VARIATION
from pyro_lvm.diagnostics.verdict import Status

__all__ = ["Curves"]

SIGNIFICANCE = 0.05
ROUNDING = 1e-10  # of p-values


@dataclass(frozen=True)
class Curves:
    """Shares of N simulations in sets that should hold given shares of them, m times.

    Attributes:
        labels: what the m curves are of.
        promised: ``(T,)`` increasing shares under an exact posterior.
        shares: ``(T, m)`` those found.
        p_values: ``(m,)`` chance of a curve at least as odd under an exact posterior, at all T
            points together, each curve by itself.
        num_simulations: N.
    """

    labels: tuple[str, ...]
    promised: Tensor
    shares: Tensor
    p_values: Tensor
    num_simulations: int

    @classmethod
    def of(cls, places: Tensor, limits: Tensor, num_places: int, labels: tuple[str, ...]) -> Curves:
        """Count the simulations whose place is below each limit.

        Args:
            places: whole ``(N, m)``, each below a limit with chance ``limit / num_places``.
            limits: whole ``(T,)``, increasing, from 1 to ``num_places - 1``.
            num_places: how many places there are.
            labels: m names.
        """
        counts = torch.stack([(places < limit).sum(0) for limit in limits])
        promised = limits.double() / num_places
        p_values = uniformity_p_values(counts, promised.tolist(), len(places))
        return cls(labels, promised, counts.double() / len(places), p_values, len(places))

    @cached_property
    def adjusted(self) -> Tensor:
        """``(m,)`` p-values times m (Bonferroni): any below 0.05 has a chance of 0.05 at most."""
        return (self.p_values * len(self.labels)).clamp(max=1.0)

    @property
    def off(self) -> list[str]:
        """The curves that an exact posterior would not have."""
        return [n for n, p in zip(self.labels, self.adjusted, strict=True) if p < SIGNIFICANCE]

    @cached_property
    def errors(self) -> Tensor:
        """``(m,)`` largest distance of found and promised shares."""
        return (self.shares - self.promised[:, None]).abs().amax(0)

    def worst(self, first: int | None = None) -> int:
        """Which curve, of the first few or of all, is the least likely; of equals the farthest."""
        p_values, errors = self.p_values[:first], self.errors[:first]
        return int(errors.where(p_values == p_values.min(), -1.0).argmax())

    def p_text(self, curve: int) -> str:
        """The adjusted p-value of a curve, for a sentence."""
        p_value = float(self.adjusted[curve])
        return f"p = {p_value:.2g}" if p_value > ROUNDING else f"p < {ROUNDING:g}"

    @property
    def status(self) -> Status:
        """Passed unless a curve is off; failed if one that is off has an error above 0.1."""
        off = self.adjusted < SIGNIFICANCE
        if not off.any():
            return Status.PASS
        return Status.FAIL if bool((self.errors[off] > MAX_TOTAL_VARIATION).any()) else Status.WARN

    def band(self) -> tuple[Tensor, Tensor]:
        """``(T,)`` least and largest shares: 0.95 of all m curves together stay between them."""
        level = 1 - SIGNIFICANCE / len(self.labels)
        return simultaneous_band(self.promised.tolist(), self.num_simulations, level)

    def share_near(self, promised: float) -> tuple[float, Tensor]:  # (), (m,)
        """The promised share nearest to ``promised``, and those found there."""
        place = (self.promised - promised).abs().argmin()
        return float(self.promised[place]), self.shares[place]
