"""Where the lines between a good and a bad diagnostic are drawn, and by whom."""

from __future__ import annotations

from math import exp, log10

__all__ = [
    "BAD_RHAT",
    "MANY_DATA",
    "MAX_CALIBRATION_ERROR",
    "MAX_KHAT",
    "MAX_RHAT",
    "MAX_SANDWICH",
    "MAX_SHARE_OF_DATA",
    "MAX_TOTAL_VARIATION",
    "MIN_ACCEPTANCE",
    "MIN_ESS_PER_CHAIN",
    "max_khat",
    "total_variation",
]

MAX_KHAT = 0.7
"""Vehtari et al. (2024), arXiv:1507.02646: from there on no practical number of draws is enough."""

MAX_RHAT, BAD_RHAT = 1.01, 1.1
"""Vehtari et al. (2021), arXiv:1903.08008, section 4, for the first; the second is the older rule
of Gelman and Rubin (1992), above which chains are far from each other."""

MIN_ESS_PER_CHAIN = 100
"""Vehtari et al. (2021), arXiv:1903.08008, section 4; below, R-hat itself is too noisy."""

# Ours, where the literature has no figure.

MAX_SHARE_OF_DATA, MANY_DATA = 0.01, 0.1
"""Shares of data with bad weights up to which a guide passes, and from which on it fails."""

MIN_ACCEPTANCE = 0.01
"""Share of proposals that a chain accepts, below which it stands still."""

MAX_TOTAL_VARIATION = 0.1
"""By which the probability of any event may be off."""

MAX_CALIBRATION_ERROR = 0.02
"""Expected calibration error of a discriminator, beyond what as few draws give by chance."""

MAX_SANDWICH = 0.1
"""Nats per datum between two bounds of one number."""


def max_khat(num_samples: int) -> float:
    """The largest k-hat that so many draws can bear: min(1 - 1 / log10 S, 0.7).

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), *Pareto smoothed importance sampling*,
        arXiv:1507.02646, eq. 13.

    Example:
        >>> round(max_khat(100), 2), max_khat(10_000)
        (0.5, 0.7)
    """
    return min(1 - 1 / log10(num_samples), MAX_KHAT) if num_samples > 10 else 0.0


def total_variation(divergence: float) -> float:
    """By how much a KL divergence, in nats, lets the probability of any event be off, at most.

    Pinsker's inequality below 1.6 nats, Bretagnolle and Huber's above.

    References:
        Tsybakov (2009), *Introduction to nonparametric estimation*, lemmas 2.5 and 2.6.

    Example:
        >>> round(total_variation(0.02), 3), round(total_variation(5.0), 3)
        (0.1, 0.997)
    """
    kl = max(divergence, 0.0)
    return float(min((kl / 2) ** 0.5, (1 - exp(-kl)) ** 0.5))
