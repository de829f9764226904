"""Simulation-based calibration by ranks: whose draws are too narrow, too wide, or shifted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from pyro_lvm.diagnostics.sbc_curves import Curves
from pyro_lvm.diagnostics.simulations import DISTANCE, Simulations
from pyro_lvm.diagnostics.simulations_scores import GUIDE
from pyro_lvm.diagnostics.verdict import Status, Verdict

__all__ = ["SBC", "Shape", "sbc"]

_CHECK = "SBC"


class Shape(StrEnum):
    """What a histogram of ranks looks like, and says of the draws."""

    NARROW = "too narrow"
    WIDE = "too wide"
    HIGH = "too high"
    LOW = "too low"


_OF_LATENTS: Mapping[Shape, str] = {
    Shape.NARROW: "It is too sure, or its mean is off, up for some data and down for others: train "
    "it longer, by an objective that covers the posterior (IWAE, ReweightedWakeSleep), or give it "
    "a richer family (AmortizedFlow).",
    Shape.WIDE: "Train the guide longer, by ELBO or IWAE with gradient='dreg', or give it a larger "
    "encoder.",
    Shape.HIGH: "Train the guide longer; compare how guide and model transform the data.",
    Shape.LOW: "Train the guide longer; compare how guide and model transform the data.",
}
_OF_QUANTITIES: Mapping[Shape, str] = {
    **_OF_LATENTS,
    Shape.HIGH: "Its draws are likelier than the truth, so it is too narrow: train it by IWAE or "
    "ReweightedWakeSleep.",
    Shape.LOW: "Its draws are less likely than the truth: it ignores part of the data or a "
    "dependence among latents. Look at collapse_report; give the guide a richer family "
    "(covariance='full', AmortizedFlow).",
}


@dataclass(frozen=True)
class SBC:
    """Ranks of the truth among the guide's draws, held against the uniform distribution.

    Attributes:
        ranks: ``(N, m)`` of m quantities: every scalar of every latent site, and functions of
            them all.
        num_draws: L; ranks are from 0 to L.
        num_latents: how many of the m, the first ones, are scalars of latents.
        curves: shares of ranks below 1, ..., L; their difference from the promised shares is
            the ECDF difference.

    Example:
        >>> ranks = torch.tensor([4, 5, 4, 5, 3, 6]).repeat(8)[:, None]  # the truth amid the draws
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> found = sbc(simulations)
        >>> found.labels[found.worst], found.shape(found.worst)
        ('z[0]', <Shape.WIDE: 'too wide'>)
    """

    ranks: Tensor
    num_draws: int
    num_latents: int
    curves: Curves

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the m quantities."""
        return self.curves.labels

    @property
    def worst(self) -> int:
        """The scalar of a latent that is off most; if none is off, the quantity that is."""
        latents_off = any(label in self.curves.off for label in self.labels[: self.num_latents])
        return self.curves.worst(self.num_latents if latents_off else None)

    def shape(self, quantity: int) -> Shape:
        """What its ranks look like, by mean or variance, whichever is farther off.

        Too narrow draws leave the truth at the ends: ranks in the shape of a U; too wide ones
        in that of a hump; shifted ones in that of a slope. A shift that changes sign from datum
        to datum makes a U too.
        """
        places = (self.ranks[:, quantity].double() + 0.5) / (self.num_draws + 1)
        shift = (places.mean() - 1 / 2) * 12**0.5  # in standard deviations of one place,
        spread = (places.var(correction=0) - 1 / 12) * 180**0.5  # and of its squared distance
        if spread.abs() >= shift.abs():
            return Shape.NARROW if spread > 0 else Shape.WIDE
        return Shape.LOW if shift > 0 else Shape.HIGH

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "sbc_p": self.curves.adjusted.min().item(),
            "sbc_off": float(len(self.curves.off)),
            "sbc_error": self.curves.errors.max().item(),
        }

    def verdict(self) -> Verdict:
        """Whether all ranks are uniform, at a chance of 0.05 to say no where they are.

        It names the worst scalar of a latent; if none is off, the worst density. A warning
        while no ECDF is more than 0.1 off, above that a failure.
        """
        curves = self.curves
        tested = f"{len(self.labels)} quantities in {curves.num_simulations} simulations"
        if curves.status == Status.PASS:
            p_text = curves.p_text(curves.worst())
            found = f"the ranks of {tested} are uniform as far as can be told ({p_text})."
            return Verdict(_CHECK, Status.PASS, found)
        worst = self.worst
        shape = self.shape(worst)
        found = (
            f"ranks of {len(curves.off)} of {tested} are not uniform. {self.labels[worst]}: draws "
            f"{shape}, ECDF off by {curves.errors[worst]:.2f} ({curves.p_text(worst)})."
        )
        advice = _OF_LATENTS if worst < self.num_latents else _OF_QUANTITIES
        return Verdict(_CHECK, curves.status, found, advice[shape])


def sbc(simulations: Simulations) -> SBC:
    r"""Test whether every rank is uniform.

    Each quantity has an exact p-value of its whole ECDF at the L points 1 / (L + 1), ...,
    L / (L + 1), against simultaneous binomial bands; p-values of the m quantities are
    multiplied by m (Bonferroni), so a false alarm anywhere has a chance of 0.05 at most. The
    quantities are all scalars of all latents, and the log-densities log p(x | z) and
    log p(x, z), which also see what no scalar's ranks can: wrong dependence among latents, and
    a guide that is the prior.

    References:
        Talts et al. (2018), arXiv:1804.06788, for the ranks and their shapes.
        Säilynoja, Bürkner, Vehtari (2022), arXiv:2103.10522, for the ECDF and its bands.
        Modrák et al. (2023), arXiv:2211.02383, for the densities.

    Example:
        Truths beyond nearly all draws, on either side.

        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)[:, None]
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> print(sbc(simulations).verdict().finding)
        ranks of 1 of 1 quantities in 40 simulations are not uniform. z[0]: draws too narrow,
        ECDF off by 0.30 (p = 1.7e-05).
    """
    labels, ranks = simulations.scalars()
    others = {n: r for n, r in simulations.quantities.items() if n not in (GUIDE, DISTANCE)}
    columns = torch.cat([ranks, *(rank[:, None] for rank in others.values())], 1)
    num_draws = simulations.num_draws
    limits = torch.arange(1, num_draws + 1, device=columns.device)
    curves = Curves.of(columns, limits, num_draws + 1, (*labels, *others))
    return SBC(columns, num_draws, len(labels), curves)
