"""The check of chains that correct the guide's draws."""

from __future__ import annotations

import warnings

from pyro_lvm.diagnostics.bridge import to_inference_data
from pyro_lvm.diagnostics.chain_quality import chain_quality, plot_chains
from pyro_lvm.diagnostics.report_case import Case, Finding

__all__ = ["chains"]

_NUM_CHAINS = 4


def chains(case: Case) -> Finding:
    """Can the guide's draws be turned into draws of the posterior?

    The draws are proposals of Metropolis-Hastings chains whose limit is the exact posterior. A
    guide's own draws are independent, so that R-hat and ESS look perfect whatever the fit; of
    these chains they mean what they say. R-hat should be at most 1.01 and ESS at least 400 over
    four chains. What no proposal reaches, no chain finds.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Rank-normalization, folding, and
        localization: an improved R-hat, arXiv:1903.08008.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of slow chains and k-hat: they are the finding
        container = to_inference_data(
            case.model,
            case.guide,
            *case.args,
            num_samples=_NUM_CHAINS * max(1, case.num_samples // _NUM_CHAINS),
            num_chains=_NUM_CHAINS,
            correct="mh",
            objective=case.objective,
            posterior_predictive=False,
            prior=False,
            log_likelihood=False,
            **case.kwargs,
        )
    found = chain_quality(container)
    caption = "acceptance of proposals, and the chains of the datum that has the fewest"
    return Finding(found.verdict(), found.summary(), {caption: plot_chains(found)})
