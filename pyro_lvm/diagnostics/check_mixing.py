"""The check of a semi-implicit guide's bound."""

from __future__ import annotations

from pyro_lvm.diagnostics.report_case import Case, DoesNotApply, Finding
from pyro_lvm.diagnostics.sandwich import plot_sandwich
from pyro_lvm.diagnostics.thresholds import MAX_SANDWICH
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import DSIVI

__all__ = ["mixing"]

_NUM_MIXING = (1, 10, 100, 1000)
_CHUNK = 100


def mixing(case: Case) -> Finding:
    """Is the bound of a semi-implicit guide known?

    The density of such a guide is an integral over mixing variables. Averages over J draws of
    them have the guide's own ELBO between two numbers, which meet as J grows.

    References:
        Molchanov, Kharitonov, Sobolev, Vetrov (2019), Doubly semi-implicit variational
        inference, arXiv:1810.02789.
    """
    if case.objective is None or not case.objective.mixes:
        raise DoesNotApply("the objective averages no mixing variables out.")
    programs = (case.model, case.guide, *case.args)
    options = {"chunk_mixing": _CHUNK, **case.kwargs}
    try:
        lower, upper = DSIVI.sandwich(*programs, num_mixing=_NUM_MIXING[-1], **options)
    except ProgramError as error:
        raise DoesNotApply(str(error)) from error
    width = (upper - lower).mean().item()
    numbers = {"elbo_at_least": lower.mean().item(), "elbo_at_most": upper.mean().item()}
    finding = (
        f"the guide's ELBO is between {lower.mean():.2f} and {upper.mean():.2f} nats per datum "
        f"by {_NUM_MIXING[-1]} mixing draws."
    )
    status, advice = Status.PASS, ""
    if width > MAX_SANDWICH:
        status, advice = Status.WARN, "Evaluate with a larger DSIVI(num_mixing=...)."
    figure = plot_sandwich(*programs, num_mixing=_NUM_MIXING, **options)
    caption = "both sides of the guide's bound"
    return Finding(Verdict("mixing", status, finding, advice), numbers, {caption: figure})
