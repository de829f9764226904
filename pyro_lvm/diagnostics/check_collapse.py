"""The check for posterior collapse."""

from __future__ import annotations

from pyro_lvm.diagnostics.collapse import collapse_report
from pyro_lvm.diagnostics.collapse_figure import plot_collapse
from pyro_lvm.diagnostics.report_case import Case, DoesNotApply, Finding

__all__ = ["collapse"]

_NUM_SAMPLES = 100


def collapse(case: Case) -> Finding:
    """Do the latents say anything of the data?

    A latent whose posterior mean is the same for every datum has collapsed to its prior: the
    model does not use it. A unit is active where the variance of its mean over the data is above
    0.01. The KL of a layer is what the bound pays for it.

    References:
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, arXiv:1509.00519,
        section 5.2.
    """
    found = collapse_report(
        case.model, case.guide, *case.args, num_samples=_NUM_SAMPLES, **case.kwargs
    )
    if not any(values.isfinite().all() for values in found.activity.values()):
        raise DoesNotApply("no real latent that each of several data has of its own.")
    figures = {"KL of each layer, and activity of its units": plot_collapse(found)}
    return Finding(found.verdict(), found.summary(), figures)
