"""Expected coverage: how often a credible region of a given level holds the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_lvm.diagnostics.sbc_curves import Curves
from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.diagnostics.simulations_scores import GUIDE
from pyro_lvm.diagnostics.verdict import Status, Verdict, percent
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["Coverage", "coverage"]

_CHECK = "coverage"


@dataclass(frozen=True)
class Coverage:
    """How many simulations' credible regions hold the truth, by level.

    Attributes:
        curves: shares by level, of the central interval of each scalar of each latent, and of
            the region of all latents where the guide's density is highest ("log q(z | x)",
            left out for a guide without a density).

    Example:
        >>> ranks = torch.arange(10).repeat(5)[:, None]  # uniform, as of a posterior
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> print(coverage(simulations).verdict())
        [pass] coverage: regions of 80 % hold the truth in 80.0 % to 80.0 % of 50 simulations
        (p = 1).
    """

    curves: Curves

    def summary(self, level: float = 0.9) -> dict[str, float]:
        """Numbers for the record, by name; coverage at the level nearest to ``level``."""
        level, shares = self.curves.share_near(level)
        of_scalars = shares[[label != GUIDE for label in self.curves.labels]]
        found = {
            "coverage_p": self.curves.adjusted.min().item(),
            f"coverage_of_{level:.2f}_least": of_scalars.min().item(),
            f"coverage_of_{level:.2f}_mean": of_scalars.mean().item(),
        }
        if GUIDE in self.curves.labels:
            found[f"coverage_of_{level:.2f}_joint"] = shares[-1].item()
        return found

    def verdict(self) -> Verdict:
        """Whether regions hold the truth as often as they say, at a chance of 0.05 to say no.

        It gives the level where the worst curve is farthest off. A warning while no share is
        more than 0.1 off, above that a failure.
        """
        curves = self.curves
        if curves.status == Status.PASS:
            level, shares = curves.share_near(0.9)
            found = (
                f"regions of {percent(level)} hold the truth in {_exact(shares.min())} to "
                f"{_exact(shares.max())} of {curves.num_simulations} simulations "
                f"({curves.p_text(curves.worst())})."
            )
            return Verdict(_CHECK, Status.PASS, found)
        worst = curves.worst()
        label, errors = curves.labels[worst], curves.shares[:, worst] - curves.promised
        place = int(errors.abs().argmax())
        promised = percent(curves.promised[place].item())
        found = (
            f"regions of {promised} of {_regions(label)} hold the truth in "
            f"{_exact(curves.shares[place, worst])} of {curves.num_simulations} simulations "
            f"({curves.p_text(worst)})."
        )
        return Verdict(_CHECK, curves.status, found, _SURE if errors[place] < 0 else _UNSURE)


def _exact(share: Tensor) -> str:
    return f"{100 * share:.1f} %"


def _regions(label: str) -> str:
    return "all latents together" if label == GUIDE else label


_SURE = (
    "The guide is too sure: do not report its intervals. Train it by an objective that covers the "
    "posterior (IWAE, ReweightedWakeSleep), give it a richer family, or correct its draws "
    "(to_inference_data with correct='mh')."
)
_UNSURE = (
    "The guide is not sure enough: its intervals are safe, and longer than they need be. Train "
    "it longer, or give it a larger encoder."
)


def coverage(simulations: Simulations) -> Coverage:
    r"""Expected coverage of central intervals, and of the regions of highest guide density.

    An interval between order statistics of L draws holds the truth in exactly t of L + 1 cases
    under an exact posterior, as does the set of points with a higher density q(z | x) than
    all but t of the draws; so levels are t / (L + 1), and no density is smoothed or
    thresholds interpolated. Tests and bands are as those of :func:`~pyro_lvm.diagnostics.sbc`.
    Coverage sees a shifted guide only as one that is too sure, and a guide that is the prior
    not at all.

    Raises:
        PyroLVMError: simulations of one draw each, which has no other to make an interval with.

    References:
        Hermans, Delaunoy, Rozet, Wehenkel, Begy, Louppe (2022), *A crisis in simulation-based
        inference? Beware, your posterior approximations can be unfaithful*, arXiv:2110.06581.

    Example:
        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)[:, None]
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=9)
        >>> coverage(simulations).summary(level=0.8)["coverage_of_0.80_mean"]
        0.25
    """
    labels, ranks = simulations.scalars()
    num_draws = simulations.num_draws
    if num_draws < 2:
        hint = "Pass simulation_based_calibration(..., num_draws=99)."
        raise PyroLVMError(
            explain("num_draws", "2 or more, for intervals between draws", "1", hint)
        )
    places = [(2 * ranks - num_draws).abs()]
    if GUIDE in simulations.quantities:
        places.append(num_draws - simulations.quantities[GUIDE][:, None])
        labels = (*labels, GUIDE)
    limits = torch.arange(1 + num_draws % 2, num_draws, 2, device=ranks.device)
    return Coverage(Curves.of(torch.cat(places, 1), limits, num_draws + 1, labels))
