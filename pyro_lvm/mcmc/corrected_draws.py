"""Chains of draws that a discriminator corrects, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_lvm.diagnostics.ratio_quality import RatioQuality
from pyro_lvm.diagnostics.thresholds import BAD_RHAT, MAX_RHAT, MIN_ACCEPTANCE, MIN_ESS_PER_CHAIN
from pyro_lvm.diagnostics.verdict import Status, Verdict, percent

__all__ = ["ADVICE", "CorrectedDraws"]

ADVICE = "Train the generator further, or the discriminator on more samples."
"""What to try where they cannot be used."""


@dataclass(frozen=True)
class CorrectedDraws:
    """Chains of corrected draws, with what is known of the ratio that corrects them.

    Attributes:
        values: ``(chains, draws, features)``.
        acceptance: ``(chains,)``, share of proposals accepted.
        quality: of the discriminator on samples it has not seen; None if it was never fitted.

    Example:
        >>> import torch
        >>> draws = CorrectedDraws(torch.randn(4, 500, 2), torch.full((4,), 0.8), quality=None)
        >>> draws.ess > 1000, draws.rhat < 1.05
        (True, True)
        >>> draws.verdict().status
        <Status.WARN: 'warn'>
    """

    values: Tensor
    acceptance: Tensor
    quality: RatioQuality | None

    @property
    def ess(self) -> float:
        """Least bulk effective sample size of any feature, in draws of all chains."""
        return float(_by_feature("ess", self.values).min())

    @property
    def rhat(self) -> float:
        """Largest R-hat of any feature."""
        return float(_by_feature("rhat", self.values).max())

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        chains = {
            "acceptance_mean": self.acceptance.mean().item(),
            "acceptance_min": self.acceptance.min().item(),
            "rhat_max": self.rhat,
            "ess_bulk_min": self.ess,
        }
        return chains | (self.quality.summary() if self.quality else {})

    def verdict(self) -> Verdict:
        """Whether the draws can be used: no better than the discriminator is."""
        count, mean = self.values.shape[:2].numel(), self.acceptance.mean().item()
        least, rhat, ess = self.acceptance.min().item(), self.rhat, self.ess
        finding = (
            f"{percent(mean)} of proposals are accepted, R-hat is at most {rhat:.3f}, "
            f"ESS at least {ess:.0f} of {count}; discriminator on held-out samples: "
            f"{self.quality.verdict().finding if self.quality else 'not judged.'}"
        )
        judged = self.quality.verdict().status if self.quality else Status.WARN
        if judged is Status.FAIL or least < MIN_ACCEPTANCE or rhat > BAD_RHAT:
            return Verdict("corrected draws", Status.FAIL, finding, ADVICE)
        if judged is Status.WARN or rhat > MAX_RHAT or ess < MIN_ESS_PER_CHAIN * len(self.values):
            return Verdict("corrected draws", Status.WARN, finding, ADVICE)
        return Verdict("corrected draws", Status.PASS, finding)


def _by_feature(name: str, values: Tensor) -> Any:
    import arviz

    chains: Any = {"x": values.cpu().numpy()}
    return getattr(arviz, name)(chains)["x"].values
