"""The check of evidence from both sides."""

from __future__ import annotations

from pyro_lvm.diagnostics.bidirectional import bidirectional
from pyro_lvm.diagnostics.bidirectional_figure import plot_evidence_sandwich
from pyro_lvm.diagnostics.report_case import Case, Finding

__all__ = ["evidence"]


def evidence(case: Case) -> Finding:
    """How near is an estimate of log p(x) by annealing?

    On data simulated from the model, chains from the prior to the posterior bound log p(x) from
    below, and chains back from the latents that made the data from above. The gap between the two
    certifies either.

    References:
        Grosse, Ghahramani, Adams (2015), Sandwiching the marginal likelihood using bidirectional
        Monte Carlo, arXiv:1511.02543.
    """
    found = bidirectional(case.model, case.guide, *case.args, **case.kwargs)
    caption = "log p(x) of simulated data from both sides"
    return Finding(found.verdict(), found.summary(), {caption: plot_evidence_sandwich(found)})
