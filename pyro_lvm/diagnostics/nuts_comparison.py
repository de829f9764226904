"""A guide's draws beside those of a sampler that needs no guide, on a few data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import exp
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.posterior import sample_posterior
from pyro_lvm.diagnostics.thresholds import BAD_RHAT
from pyro_lvm.diagnostics.unconstrained import UnconstrainedModel
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.shared_plates import SharedPlates

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["Difference", "NutsComparison", "compare_with_nuts"]

Program = Callable[..., Any]

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
        """The largest absolute value among those above 4 standard errors; 0 if there is none."""
        size = self.value.abs()
        return torch.where(size > _NOISE * self.error, size, 0.0).max().item()


@dataclass(frozen=True)
class NutsComparison:
    """Moments of m scalars, the entries of all latents of a few data, by guide and by NUTS.

    Attributes:
        names: of the scalars, as "z[0, 1]": plates first, then event dims.
        mean: of the means, in posterior standard deviations.
        log_sd: of the logs of standard deviations; below 0 where the guide is too narrow.
        quantiles: by probability, in posterior standard deviations. Their errors, and those of
            ``log_sd``, are for shapes near a Normal's.
        rhat: ``(m,)`` of NUTS, between its chains and their halves.
        ess: ``(m,)`` effective draws of NUTS.
        num_divergences: of NUTS, over all chains.
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
            "quantile_off": max(q.beyond_noise for q in self.quantiles.values()),
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
        if told["rhat_max"] > BAD_RHAT:
            finding = f"NUTS has not converged: R-hat is {told['rhat_max']:.2f}."
            return Verdict("nuts", Status.WARN, finding, _NUTS_ADVICE)
        worst = max(told["mean_off"], told["log_sd_off"], told["quantile_off"])
        if worst <= _SMALL:
            return Verdict("nuts", Status.PASS, finding)
        return Verdict("nuts", Status.WARN if worst <= _LARGE else Status.FAIL, finding, _ADVICE)


def compare_with_nuts(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 2,
    num_guide_samples: int = 4000,
    **kwargs: Any,
) -> NutsComparison:
    r"""Hold a guide against the No-U-Turn sampler on a few data.

    NUTS draws all latents of all these data together, in unconstrained space, from prior draws
    on, so that the guide has no say. Discrete sites marked to be enumerated are summed out.
    A second for each few hundred draws of a small model: take 4 data, not 400.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; only drawn from.
        num_samples: draws of NUTS in each chain.
        num_warmup: draws before, which adapt step size and mass and are dropped.
        num_chains: one after the other, 2 or more for an R-hat between chains.
        num_guide_samples: draws of the guide.

    Raises:
        ProgramError: a model with discrete latents that are not summed out.
        PlateError: a latent outside a subsampled plate.
        ValueError: a count below 1.

    References:
        Hoffman, Gelman (2014), *The No-U-Turn sampler*, arXiv:1111.4246.
        Gelman et al. (2013), *Bayesian Data Analysis*, 3rd edition, section 11.4, for R-hat.

    Example:
        The guide has the right means and half of the standard deviations.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**1.5))
        >>> found = compare_with_nuts(model, guide, torch.tensor([0.5, -1.0]), num_samples=200)
        >>> found.names, found.log_sd.value.exp().round(decimals=1)
        (('z[0]', 'z[1]'), tensor([0.5000, 0.5000]))
    """
    for name, count in (("num_samples", num_samples), ("num_chains", num_chains)):
        check_count(name, count)
    with SharedPlates():  # one minibatch in all that follows
        guided = sample_posterior(model, guide, *args, num_samples=num_guide_samples, **kwargs)
        sampler = UnconstrainedModel(model, args, kwargs)
        chains = [_chain(sampler, num_samples, num_warmup) for _ in range(num_chains)]
        values = [sampler.values(vectors) for vectors, _ in chains]
    sites = [name for name in values[0] if name in guided]
    names = [label for name in sites for label in _labels(name, guided[name].shape[1:])]
    own = torch.cat([_rows(guided[name]) for name in sites], 1)  # (G, m)
    exact = torch.stack([torch.cat([_rows(part[n]) for n in sites], 1) for part in values])
    return _compared(tuple(names), own, exact, sum(count for _, count in chains))


def _chain(model: UnconstrainedModel, num_samples: int, num_warmup: int) -> tuple[Tensor, int]:
    """Vectors ``(num_samples, *batch, D)``, and how many of the moves diverged."""

    def potential(position: Mapping[str, Tensor]) -> Tensor:
        return -model.densities(position["all"][None]).log_joint.sum()

    kernel = NUTS(potential_fn=potential)
    run = MCMC(
        kernel,
        num_samples=num_samples,
        warmup_steps=num_warmup,
        initial_params={"all": model.prior_draws(1)[0]},
        disable_progbar=not sys.stderr.isatty(),
    )
    run.run()
    diverged = run.diagnostics()["divergences"]
    return run.get_samples()["all"], sum(map(len, diverged.values()))


def _compared(
    names: tuple[str, ...], own: Tensor, exact: Tensor, num_divergences: int
) -> NutsComparison:
    """From draws of the guide ``(G, m)`` and of NUTS ``(chains, S, m)``."""
    flat = exact.flatten(0, 1)
    mean, sd = flat.mean(0), flat.std(0)
    ess = _ess(exact)
    ess_of_squares = _ess((exact - mean).square()).minimum(ess)
    mean_error = (1 / ess + (own.std(0) / sd).square() / len(own)).sqrt()
    sd_error = (0.5 / ess_of_squares + 0.5 / len(own)).sqrt()
    return NutsComparison(
        names,
        Difference((own.mean(0) - mean) / sd, mean_error),
        Difference((own.std(0) / sd).log(), sd_error),
        {p: _of_quantile(p, own, flat, ess_of_squares) for p in _QUANTILES},
        split_gelman_rubin(exact, chain_dim=0, sample_dim=1),
        ess,
        num_divergences,
    )


def _of_quantile(p: float, own: Tensor, flat: Tensor, ess: Tensor) -> Difference:
    normal = torch.distributions.Normal(flat.new_zeros(()), 1.0)
    density = normal.log_prob(normal.icdf(flat.new_tensor(p))).exp()
    value = (own.quantile(p, 0) - flat.quantile(p, 0)) / flat.std(0)
    return Difference(value, (p * (1 - p) * (1 / ess + 1 / len(own))).sqrt() / density)


def _rows(draws: Tensor) -> Tensor:  # (draws, scalars)
    return draws.reshape(len(draws), -1)


def _ess(draws: Tensor) -> Tensor:  # (m,)
    """Effective draws of the mean; no more than there are."""
    found: Tensor = effective_sample_size(draws, chain_dim=0, sample_dim=1)
    return found.clamp(max=draws.shape[:2].numel())


def _labels(name: str, shape: torch.Size) -> list[str]:
    places = product(*map(range, shape))
    return [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
