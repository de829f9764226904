"""How well chains of corrected draws mix."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_lvm.diagnostics.thresholds import BAD_RHAT, MAX_RHAT, MIN_ACCEPTANCE, MIN_ESS_PER_CHAIN
from pyro_lvm.diagnostics.verdict import Status, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ChainQuality", "chain_quality", "plot_chains"]

_LONGER = "Draw longer chains: to_inference_data(correct='mh', num_samples=20_000)."
_DO_NOT_USE = (
    "Do not use the corrected draws: train a wider guide (IWAE(50, gradient='dreg'), "
    "ReweightedWakeSleep, MHAcceptance), or run pyro.infer.NUTS."
)


@dataclass(frozen=True)
class ChainQuality:
    """Of the chains of each datum.

    Attributes:
        acceptance: ``(*batch,)``, share of proposals accepted.
        rhat: largest R-hat of any latent of the data that were looked at.
        ess: least bulk effective sample size of these, in draws of all chains.
        log_weight: ``(chains, draws)`` nats, the chains of the datum with the least acceptance.
        num_data: how many data ``rhat`` and ``ess`` are of: those with the least acceptance.
    """

    acceptance: NDArray[Any]
    rhat: float
    ess: float
    log_weight: NDArray[Any]
    num_data: int

    @property
    def num_draws(self) -> int:
        """In all chains of a datum."""
        return self.log_weight.size

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "acceptance_mean": float(self.acceptance.mean()),
            "acceptance_min": float(self.acceptance.min()),
            "rhat_max": self.rhat,
            "ess_bulk_min": self.ess,
        }

    def verdict(self) -> Verdict:
        """Whether the corrected draws can be used."""
        least = float(self.acceptance.min())
        finding = (
            f"{100 * self.acceptance.mean():.3g} % of proposals are accepted (at worst "
            f"{100 * least:.2g} % of a datum's); of the {self.num_data} slowest data R-hat is at "
            f"most {self.rhat:.3f}, ESS at least {self.ess:.0f} of {self.num_draws}."
        )
        if least < MIN_ACCEPTANCE or self.rhat > BAD_RHAT:
            return Verdict("chains", Status.FAIL, finding, _DO_NOT_USE)
        if self.rhat > MAX_RHAT or self.ess < MIN_ESS_PER_CHAIN * len(self.log_weight):
            return Verdict("chains", Status.WARN, finding, _LONGER)
        return Verdict("chains", Status.PASS, finding)


def chain_quality(container: Any, max_data: int = 20) -> ChainQuality:
    """Acceptance, R-hat and effective sample size of corrected draws.

    Args:
        container: what ``to_inference_data(correct="mh")`` returned.
        max_data: R-hat and ESS are computed for so many data, those with the least acceptance.

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
        >>> quality.rhat < 1.02, quality.acceptance.shape
        (True, (3,))
    """
    of_chains: Any = import_module("arviz")  # loads plotting libraries, and has no types
    stats = container["sample_stats"]
    acceptance = stats["acceptance_rate"].mean(("chain", "draw"))
    slowest = _slowest(acceptance, max_data)
    posterior = xr.Dataset(container["posterior"].data_vars).isel(slowest)
    first = {dim: index[0] for dim, index in slowest.items()}
    return ChainQuality(
        acceptance.to_numpy(),
        _extreme(of_chains.rhat(posterior), np.nanmax, 1.0),
        _extreme(of_chains.ess(posterior), np.nanmin, inf),
        stats["log_weight"].isel(first).to_numpy(),
        min(max_data, acceptance.size),
    )


def _slowest(acceptance: xr.DataArray, count: int) -> dict[Any, xr.DataArray]:
    """Where the least of ``acceptance`` are, by dim."""
    if not acceptance.dims:
        return {}
    order = np.argsort(acceptance.to_numpy(), axis=None)[:count]
    places = np.unravel_index(order, acceptance.shape)
    return {
        dim: xr.DataArray(index, dims="slowest")
        for dim, index in zip(acceptance.dims, places, strict=True)
    }


def _extreme(values: Any, of: Any, otherwise: float) -> float:
    """Over all variables; NaN of a variable that never changes is passed over."""
    every = np.concatenate([np.ravel(array.to_numpy()) for array in values.data_vars.values()])
    return float(of(every)) if np.isfinite(every).any() else otherwise


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
