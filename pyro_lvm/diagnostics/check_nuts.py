"""The check of the guide against a sampler that needs none."""

from __future__ import annotations

from pyro_lvm.diagnostics.nuts_comparison import compare_with_nuts
from pyro_lvm.diagnostics.nuts_figure import plot_nuts_comparison
from pyro_lvm.diagnostics.report_case import Case, Finding

__all__ = ["nuts"]

_NUM_DATA, _NUM_WORST = 4, 10


def nuts(case: Case) -> Finding:
    """Does the guide say what NUTS says of a few data?

    The No-U-Turn sampler draws the latents of the first four data, without the guide. Means,
    standard deviations and quantiles of both are compared, beyond the noise of the draws. NUTS
    itself can miss a mode.

    References:
        Hoffman, Gelman (2014), The No-U-Turn sampler, arXiv:1111.4246.
    """
    few = case.first(_NUM_DATA)
    found = compare_with_nuts(few.model, few.guide, *few.args, **few.kwargs)
    table = found.to_dataframe().rename_axis("latent").reset_index()
    worst = table.reindex(table["mean"].abs().sort_values(ascending=False).index[:_NUM_WORST])
    caption = "guide less NUTS, of each latent"
    return Finding(found.verdict(), found.summary(), {caption: plot_nuts_comparison(found)}, worst)
