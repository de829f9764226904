"""Tests of accuracy with random points: coverage of all latents together, from draws alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyro_lvm.diagnostics.sbc_curves import Curves
from pyro_lvm.diagnostics.simulations import DISTANCE, Simulations
from pyro_lvm.diagnostics.verdict import Status, Verdict

__all__ = ["TARP", "tarp"]

_CHECK = "TARP"


@dataclass(frozen=True)
class TARP:
    """How many simulations' balls around random points hold the truth, by level.

    Attributes:
        curves: the one curve of shares by level, the level being the share of the guide's draws
            in the ball.

    Example:
        >>> ranks = torch.arange(10).repeat(5)  # uniform, as of a posterior
        >>> found = tarp(Simulations({"z": ranks}, {"distance": ranks}, num_draws=9))
        >>> print(found.verdict())
        [pass] TARP: balls around random points hold the truth as often as they say, off by at
        most 0.00 (p = 1).
    """

    curves: Curves

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "tarp_p": self.curves.p_values.item(),
            "tarp_error": self.curves.errors.item(),
        }

    def verdict(self) -> Verdict:
        """Whether balls hold the truth as often as they say, at a chance of 0.05 to say no.

        A warning while no share is more than 0.1 off, above that a failure.
        """
        curves = self.curves
        figures = f"off by at most {curves.errors[0]:.2f} ({curves.p_text(0)})"
        if curves.status == Status.PASS:
            found = f"balls around random points hold the truth as often as they say, {figures}."
            return Verdict(_CHECK, Status.PASS, found)
        found = f"balls around random points do not hold the truth as often as they say, {figures}."
        advice = (
            "The draws of all latents together are not those of the posterior; plot_sbc tells "
            "which latent is off, or, if none is, give the guide dependence among latents "
            "(covariance='full', AmortizedFlow)."
        )
        return Verdict(_CHECK, curves.status, found, advice)


def tarp(simulations: Simulations) -> TARP:
    r"""Coverage of balls around random points, which needs no density.

    A reference is drawn from the prior for each simulation. The ball around it that holds a
    share of the guide's draws holds the truth in that share of simulations if the guide is the
    posterior. Distances are Euclidean, each scalar in units of its spread over the truth and
    the draws of its simulation. As the reference is independent of the data, a guide that is
    the prior passes (Lemos et al., section 3); the log-densities of
    :func:`~pyro_lvm.diagnostics.sbc` catch it. Tests and bands are as there.

    References:
        Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), *Sampling-based accuracy testing of
        posterior estimators for general inference*, arXiv:2302.03026, algorithm 2.

    Example:
        >>> ranks = torch.tensor([0, 1, 9, 9, 0, 8, 0, 9]).repeat(5)
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks}, num_draws=9)
        >>> tarp(simulations).verdict().status
        <Status.FAIL: 'fail'>
    """
    places = simulations.quantities[DISTANCE][:, None]
    limits = torch.arange(1, simulations.num_draws + 1, device=places.device)
    return TARP(Curves.of(places, limits, simulations.num_draws + 1, (DISTANCE,)))
