"""What the columns of the comparison mean, and how far each can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from pyro_lvm.cli.configs import EvaluationConfig
from pyro_lvm.cli.evaluation import Summary

__all__ = ["legend"]

_COLUMNS = (
    "bound is the objective's own; gain is over the first row. ± are standard errors over data, "
    "over seeds, and of the gain. k-hat > 0.7 is the share of data whose importance weights cannot "
    "be trusted, ESS the share of draws that are effective. active counts the latent units whose "
    "mean varies with the data, of all; KL is what each latent site costs in nats per datum: at 0 "
    "a layer adds nothing to those above (figures/collapse.png)."
)
_ESTIMATES = "~ marks an estimate that is no bound: it may be too high as well as too low."
_WEIGHTS = (
    "The guide has no density: in the weights of k-hat and ESS the discriminator stands for it, "
    "and they can be trusted as far as it can (figures/calibration.png); that of AAE and IWAAE "
    "does not see the data, and says nothing of a single posterior."
)


def legend(
    rows: Sequence[Summary], num_data: int, seeds: Sequence[int], config: EvaluationConfig
) -> str:
    """A paragraph to stand below the table of ``rows``."""
    by_discriminator = any(row.weights_are_estimates for row in rows)
    sentences = [
        f"Nats per datum on {num_data} test data, seeds {[*seeds]}.",
        f"log p(x) is by {_method(by_discriminator, config)}, with a Monte Carlo error of "
        f"{max(row.evidence_error for row in rows):.2f} a datum (mean, worst row);",
        _COLUMNS,
    ]
    if by_discriminator or any(row.bound_is_estimate for row in rows):
        sentences.append(_ESTIMATES)
    if by_discriminator:
        sentences.append(_WEIGHTS)
    return fill(" ".join(sentences), width=100, break_on_hyphens=False)


def _method(by_discriminator: bool, config: EvaluationConfig) -> str:
    if by_discriminator:
        return (
            f"annealed importance sampling, {config.ais_chains} chains of "
            f"{config.ais_temperatures} temperatures"
        )
    return f"importance sampling with {config.num_samples} draws"
