"""What chains have accepted, and the warning where they stand still."""

from __future__ import annotations

from warnings import warn

from torch import Tensor

from pyro_lvm.diagnostics.thresholds import MIN_ACCEPTANCE
from pyro_lvm.errors import explain

__all__ = ["Counts"]


class Counts:
    """Accepted moves of each chain or datum since the warm-up.

    Args:
        zeros: ``(*batch,)``, of the chains' dtype and device.
        warmup_steps: moves not to count.
        where: who warns.
    """

    def __init__(self, zeros: Tensor, warmup_steps: int, where: str) -> None:
        self.moved, self.steps = zeros, 0
        self.warmup_left = warmup_steps
        self.where = where

    def add(self, accepted: Tensor) -> None:
        """One move, ``(*batch,)`` bool."""
        self.moved, self.steps = self.moved + accepted, self.steps + 1
        self.warmup_left -= 1
        if self.warmup_left == 0:
            self.moved, self.steps = self.moved * 0, 0

    @property
    def rate(self) -> Tensor:
        """Share of moves accepted, ``(*batch,)``."""
        return self.moved / max(self.steps, 1)

    def logging(self) -> dict[str, str]:
        """The mean rate, and the lowest."""
        rate = self.rate
        return {"acc. rate": f"{rate.mean().item():.3f}", "lowest": f"{rate.min().item():.3f}"}

    def warn(self, of_data: Tensor) -> None:
        """Say so if the rate ``(*batch,)`` of some data is below 1 %."""
        still = (of_data < MIN_ACCEPTANCE).double().mean().item()
        if still and self.steps:
            expected = f"{MIN_ACCEPTANCE:.0%} of the proposals accepted"
            found = f"fewer for {still:.1%} of the data, at worst {of_data.min():.2g}"
            hint = (
                "Their chains stand still: do not use them. Train the guide longer or by "
                "MHAcceptance (MarkovAcceptance for steps), or run pyro.infer.NUTS."
            )
            warn(explain(self.where, expected, found, hint), stacklevel=2)
