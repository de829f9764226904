"""How well chains of corrected draws mix."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_lvm.diagnostics.thresholds import (
    BAD_RHAT,
    MANY_DATA,
    MAX_RHAT,
    MAX_SHARE_OF_DATA,
    MIN_ACCEPTANCE,
    MIN_ESS_PER_CHAIN,
)
from pyro_lvm.diagnostics.verdict import Status, Verdict, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ChainQuality", "chain_quality", "plot_chains"]

_LOOKED_AT = "looked_at"
_LONGER = (
    "Draw longer chains (to_inference_data(correct='mh', num_samples=20_000)), and leave the data "
    "out whose R-hat stays above 1.01."
)
_DO_NOT_USE = (
    "Do not use the corrected draws: train a wider guide (IWAE(50, gradient='dreg'), "
    "ReweightedWakeSleep, MHAcceptance), or run pyro.infer.NUTS."
)


@dataclass(frozen=True)
class ChainQuality:
    """Of the chains of each datum.

    Attributes:
        acceptance: ``(*batch,)``, share of proposals accepted.
        rhat: ``(num_data,)``, largest R-hat of the latents of each datum looked at: those at even
            steps in the order of their acceptance, the slowest first.
        ess: ``(num_data,)``, least bulk effective sample size of these, in draws of all chains.
        log_weight: ``(chains, draws)`` nats, the chains of the slowest datum.
    """

    acceptance: NDArray[Any]
    rhat: NDArray[Any]
    ess: NDArray[Any]
    log_weight: NDArray[Any]

    @property
    def min_ess(self) -> int:
        """What R-hat and quantiles need, of all chains together."""
        return MIN_ESS_PER_CHAIN * len(self.log_weight)

    @property
    def slow(self) -> float:
        """Share of data whose chains are too short: R-hat above 1.01, or too few effective."""
        return float(((self.rhat > MAX_RHAT) | (self.ess < self.min_ess)).mean())

    @property
    def stuck(self) -> float:
        """Share of data whose chains do not mix: R-hat above 1.1, or hardly a proposal accepted."""
        apart = float((self.rhat > BAD_RHAT).mean())
        return max(apart, float((self.acceptance < MIN_ACCEPTANCE).mean()))

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "acceptance_mean": float(self.acceptance.mean()),
            "acceptance_min": float(self.acceptance.min()),
            "rhat_max": float(self.rhat.max()),
            "ess_bulk_min": float(self.ess.min()),
            "chains_slow": self.slow,
            "chains_stuck": self.stuck,
        }

    def verdict(self) -> Verdict:
        """Whether the corrected draws can be used."""
        told = self.summary()
        finding = (
            f"{percent(told['acceptance_mean'])} of proposals are accepted (at worst "
            f"{percent(told['acceptance_min'])} of a datum's). R-hat is above {MAX_RHAT} or "
            f"ESS below {self.min_ess} for {percent(self.slow)} of {len(self.rhat)} data looked "
            f"at (at worst {told['rhat_max']:.2f}, and {told['ess_bulk_min']:.0f} of "
            f"{self.log_weight.size} draws)."
        )
        if self.stuck > MANY_DATA:
            return Verdict("chains", Status.FAIL, finding, _DO_NOT_USE)
        if self.stuck or self.slow > MAX_SHARE_OF_DATA:
            return Verdict("chains", Status.WARN, finding, _LONGER)
        return Verdict("chains", Status.PASS, finding)


def chain_quality(container: Any, max_data: int = 40) -> ChainQuality:
    """Acceptance, R-hat and effective sample size of corrected draws.

    Args:
        container: what ``to_inference_data(correct="mh")`` returned.
        max_data: R-hat and ESS are computed for so many data, the slowest among them.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro_lvm.diagnostics import to_inference_data
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.8))
        >>> container = to_inference_data(model, guide, torch.ones(3), correct="mh", seed=0)
        >>> quality = chain_quality(container)
        >>> quality.rhat.max() < 1.02, quality.acceptance.shape
        (np.True_, (3,))
    """
    of_chains: Any = import_module("arviz")  # loads plotting libraries, and has no types
    stats = container["sample_stats"]
    acceptance = stats["acceptance_rate"].mean(("chain", "draw"))
    places = _spread(acceptance, max_data)
    posterior = xr.Dataset(container["posterior"].data_vars).isel(places)
    slowest = {dim: index[0] for dim, index in places.items()}
    return ChainQuality(
        acceptance.to_numpy(),
        _extreme(of_chains.rhat(posterior), np.fmax, 1.0),
        _extreme(of_chains.ess(posterior), np.fmin, inf),
        stats["log_weight"].isel(slowest).to_numpy(),
    )


def _spread(acceptance: xr.DataArray, count: int) -> dict[Any, xr.DataArray]:
    """Where to look, by dim: at even steps in the order of ``acceptance``."""
    if not acceptance.dims:
        return {}
    steps = np.linspace(0, acceptance.size - 1, min(count, acceptance.size)).round().astype(int)
    order = np.argsort(acceptance.to_numpy(), axis=None)[steps]
    places = np.unravel_index(order, acceptance.shape)
    return {
        dim: xr.DataArray(index, dims=_LOOKED_AT)
        for dim, index in zip(acceptance.dims, places, strict=True)
    }


def _extreme(values: Any, of: np.ufunc, start: float) -> NDArray[Any]:  # (num_data,)
    """Over all latents of each datum; NaN, of one that never changes, is passed over."""
    worst = np.array([start])
    for array in values.data_vars.values():
        last = array.transpose(..., _LOOKED_AT, missing_dims="ignore").to_numpy()
        flat = last.reshape(-1, last.shape[-1]) if _LOOKED_AT in array.dims else last.reshape(-1, 1)
        worst = of(worst, of.reduce(flat, axis=0))
    return worst


def plot_chains(quality: ChainQuality) -> Figure:
    """Acceptance over data, and the log-weights along the slowest chains.

    Returns:
        The figure, not shown and not known to ``pyplot``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(quality.acceptance.ravel(), bins=20, range=(0, 1), color="tab:blue", alpha=0.8)
    left.axvline(MIN_ACCEPTANCE, color="tab:red", linestyle="--", label="stands still below")
    left.set(xlabel="share of proposals accepted", ylabel="number of data")
    left.legend()
    right.plot(quality.log_weight.T, lw=0.8)
    right.set(xlabel="draw", ylabel="log weight, nats", title="slowest datum, one line a chain")
    return figure
