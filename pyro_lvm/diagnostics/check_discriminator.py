"""The check of a discriminator."""

from __future__ import annotations

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.diagnostics.ratio_quality import plot_calibration, ratio_quality
from pyro_lvm.diagnostics.report_case import Case, DoesNotApply, Finding

__all__ = ["discriminator"]

_NUM_SAMPLES = 200


def discriminator(case: Case) -> Finding:
    """Can the discriminator that stands for the guide's density be trusted?

    Its logit is used as a log-ratio of densities: that is right where, of all draws that it
    calls the guide's with probability p, a share p is. One that tells nearly all draws apart is
    saturated: how large the ratio is, no draw shows.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), On calibration of modern neural networks,
        arXiv:1706.04599.
    """
    objective = case.objective
    if not isinstance(objective, AdversarialObjective):
        raise DoesNotApply("the objective has no discriminator.")
    found = ratio_quality(
        objective, case.model, case.guide, *case.args, num_samples=_NUM_SAMPLES, **case.kwargs
    )
    figures = {"reliability of the discriminator": plot_calibration(found)}
    return Finding(found.verdict(), found.summary(), figures)
