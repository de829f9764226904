"""Means of independent draws, judged by their own standard errors."""

from torch import Tensor


def mean_and_error(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Over the first dim."""
    return draws.mean(0), draws.std(0) / len(draws) ** 0.5


def assert_mean(draws: Tensor, exact: Tensor, max_z: float = 5.5, max_error: float = 0.05) -> None:
    """Every entry is within ``max_z`` standard errors, which are small beside all of ``exact``.

    Over a few hundred entries right code is beyond 5.5 less than once in 1e5 runs. An error of
    ``max_error`` times the norm of ``exact`` is the largest that may hide a fault.
    """
    mean, error = mean_and_error(draws)
    assert error.max() < max_error * exact.norm(), f"standard error {error} hides faults"
    z_score = (mean - exact).abs() / error.clamp_min(1e-9)  # rounding of what does not vary
    assert z_score.max() < max_z, f"mean {mean}, exact {exact}, z {z_score}"
