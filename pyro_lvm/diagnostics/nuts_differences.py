"""How far a guide's draws are from those of a sampler, scalar by scalar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyro_lvm.diagnostics.thresholds import BAD_RHAT
from pyro_lvm.diagnostics.verdict import Status, Verdict

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["Difference", "NutsComparison", "compared"]

_QUANTILES = (0.05, 0.5, 0.95)
_NOISE = 4  # standard errors that the largest of many differences may be off by
_SMALL, _LARGE = 0.2, 1.0  # posterior standard deviations; of a log-ratio of these, factors
_ADVICE = (
    "Look at which latents differ in to_dataframe(). Too narrow: covariance='full', AmortizedFlow "
    "or IWAE(50, gradient='dreg'). Off: train on, or SemiAmortized."
)
_NUTS_ADVICE = "Raise num_warmup and num_samples, until NUTS itself can be trusted."


class Difference(NamedTuple):
    """Guide less NUTS, and the Monte Carlo standard error of both, ``(m,)`` each."""

    value: Tensor
    error: Tensor

    @property
    def beyond_noise(self) -> float:
        """The largest absolute value among those above 4 standard errors; 0 if there is none.

        NaN if any is not known.
        """
        size = self.value.abs()
        return torch.where(size <= _NOISE * self.error, 0.0, size).max().item()


@dataclass(frozen=True)
class NutsComparison:
    """Moments of m scalars, the entries of all latents of a few data, by guide and by NUTS.

    Attributes:
        names: of the scalars, as "z[0, 1]": plates first, then event dims.
        mean: of the means, in posterior standard deviations.
        log_sd: of the logs of standard deviations; below 0 where the guide is too narrow.
        quantiles: by probability, in posterior standard deviations.
        rhat: ``(m,)`` of NUTS, between its chains and their halves.
        ess: ``(m,)`` effective draws of NUTS.
        num_divergences: of NUTS, over all chains.

    Example:
        A guide with half of the standard deviation.

        >>> found = compared(("z",), torch.randn(4000, 1) / 2, torch.randn(4, 1000, 1), 0)
        >>> bool((found.log_sd.value - torch.tensor(0.5).log()).abs() < 4 * found.log_sd.error)
        True
        >>> found.verdict().status
        <Status.WARN: 'warn'>
    """

    names: tuple[str, ...]
    mean: Difference
    log_sd: Difference
    quantiles: Mapping[float, Difference]
    rhat: Tensor
    ess: Tensor
    num_divergences: int

    def to_dataframe(self) -> DataFrame:
        """One row a scalar."""
        import pandas as pd

        differences = {"mean": self.mean, "log_sd": self.log_sd}
        differences |= {f"q{100 * p:.0f}": difference for p, difference in self.quantiles.items()}
        columns = {"rhat": self.rhat, "ess": self.ess}
        for name, difference in differences.items():
            columns |= {name: difference.value, f"{name}_error": difference.error}
        return pd.DataFrame({n: c.cpu().numpy() for n, c in columns.items()}, list(self.names))

    def summary(self) -> dict[str, float]:
        """The largest differences beyond noise, and how good NUTS is, by name."""
        return {
            "mean_off": self.mean.beyond_noise,
            "log_sd_off": self.log_sd.beyond_noise,
            "quantile_off": _largest(q.beyond_noise for q in self.quantiles.values()),
            "rhat_max": self.rhat.max().item(),
            "ess_min": self.ess.min().item(),
            "divergences": self.num_divergences,
        }

    def verdict(self) -> Verdict:
        """Whether the guide says what NUTS says, where NUTS can be trusted."""
        told = self.summary()
        finding = (
            f"of {len(self.names)} scalars, means are off by up to {told['mean_off']:.2g} sd of "
            f"the posterior, sds by a factor of up to {exp(told['log_sd_off']):.2g}, quantiles "
            f"by up to {told['quantile_off']:.2g} sd, beyond the noise of the draws."
        )
        if not told["rhat_max"] <= BAD_RHAT:  # NaN where chains never moved
            finding = f"NUTS has not converged: R-hat is {told['rhat_max']:.2f}."
            return Verdict("nuts", Status.WARN, finding, _NUTS_ADVICE)
        worst = _largest(told[name] for name in ("mean_off", "log_sd_off", "quantile_off"))
        if worst <= _SMALL:
            return Verdict("nuts", Status.PASS, finding)
        return Verdict("nuts", Status.WARN if worst <= _LARGE else Status.FAIL, finding, _ADVICE)


def compared(
    names: tuple[str, ...], own: Tensor, exact: Tensor, num_divergences: int
) -> NutsComparison:
    """From draws of the guide ``(G, m)`` and of NUTS ``(chains, S, m)``.

    Scalars that have one value in all of them, as the corner of a Cholesky factor, are left out.
    """
    kept = ((own != own[0]) | (exact != own[0]).any(0).any(0)).any(0)
    own, exact = own[:, kept], exact[..., kept]
    flat = exact.flatten(0, 1)
    mean, sd = flat.mean(0), flat.std(0)
    ess = _ess(exact)
    ess_of_squares = _ess((exact - mean).square()).minimum(ess)
    mean_error = (1 / ess + (own.std(0) / sd).square() / len(own)).sqrt()
    sd_error = (_square_of_log_sd(flat) / ess_of_squares + _square_of_log_sd(own) / len(own)).sqrt()
    return NutsComparison(
        tuple(name for name, stays in zip(names, kept, strict=True) if stays),
        Difference((own.mean(0) - mean) / sd, mean_error),
        Difference((own.std(0) / sd).log(), sd_error),
        {p: _of_quantile(p, own, flat, ess_of_squares) for p in _QUANTILES},
        split_gelman_rubin(exact, chain_dim=0, sample_dim=1),
        ess,
        num_divergences,
    )


def _square_of_log_sd(draws: Tensor) -> Tensor:  # (m,)
    """Squared standard error of the log of a standard deviation, times the number of draws."""
    squares = (draws - draws.mean(0)).square()
    return (squares / squares.mean(0)).square().mean(0).sub(1) / 4


def _of_quantile(p: float, own: Tensor, flat: Tensor, ess: Tensor) -> Difference:
    value = own.quantile(p, 0) - flat.quantile(p, 0)
    error = torch.hypot(
        _quantile_error(p, flat, ess), _quantile_error(p, own, torch.full_like(ess, len(own)))
    )
    return Difference(value / flat.std(0), error / flat.std(0))


def _quantile_error(p: float, draws: Tensor, count: Tensor) -> Tensor:  # (m,)
    """By the slope of the quantiles between two standard errors of p below and above."""
    error = (p * (1 - p) / count).sqrt().nan_to_num()
    ends = torch.stack([p - 2 * error, p + 2 * error]).clamp(0, 1)
    places = ((len(draws) - 1) * ends).round()
    below, above = draws.sort(0).values.gather(0, places.long())
    width = (places[1] - places[0]).clamp(min=1) / (len(draws) - 1)
    slope: Tensor = (above - below) / width
    return error * slope


def _largest(values: Iterable[float]) -> float:
    """NaN if any is."""
    return torch.tensor([*values]).max().item()


def _ess(draws: Tensor) -> Tensor:  # (m,)
    """Effective draws of the mean; no more than there are."""
    found: Tensor = effective_sample_size(draws, chain_dim=0, sample_dim=1)
    return found.clamp(max=draws.shape[:2].numel())
