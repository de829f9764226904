"""The checks of the model: would it make such data?"""

from __future__ import annotations

from pyro_lvm.diagnostics.loo_pit import loo_pit as loo_pit_of
from pyro_lvm.diagnostics.predictive_checks import predictive_check
from pyro_lvm.diagnostics.predictive_figures import plot_loo_pit, plot_predictive_check
from pyro_lvm.diagnostics.report_case import Case, Finding

__all__ = ["loo_pit", "predictive"]

_NUM_SAMPLES = 500


def predictive(case: Case) -> Finding:
    """Do data drawn anew from the posterior have the statistics of the data?

    The p-value of a statistic is the share of new data sets in which it is larger. As the
    posterior has seen the data, an extreme one tells of a wrong model, a moderate one little.

    References:
        Gelman, Meng, Stern (1996), Posterior predictive assessment of model fitness via realized
        discrepancies, Statistica Sinica 6.
    """
    found = predictive_check(
        case.model, case.guide, *case.args, num_samples=_NUM_SAMPLES, **case.kwargs
    )
    caption = "statistics of new data, and of the data"
    return Finding(found.verdict(), found.summary(), {caption: plot_predictive_check(found)})


def loo_pit(case: Case) -> Finding:
    """Do data lie where they are predicted without them?

    The probability that a datum is below what it is, predicted from all others, is uniform in a
    right model. A datum with latents of its own is predicted from their prior.

    References:
        Vehtari, Gelman, Gabry (2017), Practical Bayesian model evaluation using leave-one-out
        cross-validation and WAIC, arXiv:1507.04544.
    """
    found = loo_pit_of(case.model, case.guide, *case.args, num_samples=_NUM_SAMPLES, **case.kwargs)
    caption = "ECDF of these probabilities, less a uniform one"
    return Finding(found.verdict(), found.summary(), {caption: plot_loo_pit(found)})
