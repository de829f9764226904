"""The check of what a guide lacks, family and encoder."""

from __future__ import annotations

from pyro_lvm.diagnostics.amortization import amortization_gap
from pyro_lvm.diagnostics.amortization_figure import plot_amortization_gap
from pyro_lvm.diagnostics.report_case import Case, Finding

__all__ = ["amortization"]


def amortization(case: Case) -> Finding:
    """Is it the family of the guide or its encoder that lacks?

    The parameters of the guide's distributions are optimised for each datum alone. What the ELBO
    gains by that the encoder lacks; what it is still below log p(x), the family.

    References:
        Cremer, Li, Duvenaud (2018), Inference suboptimality in variational autoencoders,
        arXiv:1801.03558.
    """
    found = amortization_gap(case.model, case.guide, *case.args, **case.kwargs)
    caption = "the gap of each datum, and the ELBO while its parameters are optimised"
    return Finding(found.verdict(), found.summary(), {caption: plot_amortization_gap(found)})
