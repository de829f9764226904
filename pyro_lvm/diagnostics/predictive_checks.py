"""Whether data drawn anew from the posterior look like the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of
from pyro_lvm.diagnostics.predictive import observed_data, posterior_predictive
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.objectives import DSIVI, ELBO

__all__ = ["PredictiveCheck", "predictive_check"]

Program = Callable[..., Any]
Statistic = Callable[[Tensor], Tensor]

_SIGNIFICANCE = 0.05
_ADVICE = (
    "The model does not make such data: look at its likelihood, and draw to_inference_data's "
    "posterior_predictive beside the data."
)


@dataclass(frozen=True)
class PredictiveCheck:
    """Statistics of the data beside those of data drawn anew, by "<site>: <statistic>".

    Attributes:
        observed: scalars.
        replicated: ``(K,)`` each.

    Example:
        >>> drawn = torch.arange(99.0)
        >>> found = PredictiveCheck({"x: mean": torch.tensor(98.5)}, {"x: mean": drawn})
        >>> found.p_values
        {'x: mean': 0.005}
        >>> found.verdict().status
        <Status.WARN: 'warn'>
    """

    observed: Mapping[str, Tensor]
    replicated: Mapping[str, Tensor]

    @property
    def p_values(self) -> dict[str, float]:
        """How often the statistic of new data is above that of the data, ties counting half.

        The data count as one more tie, so that no p-value is 0.
        """
        return {
            name: _mid_p_value(drawn, seen)
            for (name, seen), drawn in zip(
                self.observed.items(), self.replicated.values(), strict=True
            )
        }

    @property
    def off(self) -> list[str]:
        """Statistics with a two-sided p-value below 0.05, all of them taken together."""
        limit = _SIGNIFICANCE / 2 / len(self.observed)
        return [name for name, p in self.p_values.items() if min(p, 1 - p) < limit]

    def summary(self) -> dict[str, float]:
        """The p-values, by "p_<site>: <statistic>"."""
        return {f"p_{name}": p for name, p in self.p_values.items()}

    def verdict(self) -> Verdict:
        """Whether any statistic of the data is one that new data do not have."""
        told = ", ".join(f"p({name}) = {p:.2g}" for name, p in self.p_values.items())
        finding = f"data drawn anew have the statistics of the data: {told}."
        if not self.off:
            return Verdict("predictive", Status.PASS, finding)
        finding = f"data drawn anew differ in {', '.join(self.off)}: {told}."
        return Verdict("predictive", Status.WARN, finding, _ADVICE)


def predictive_check(
    model: Program,
    guide: Program,
    *args: Any,
    statistics: Mapping[str, Statistic] | None = None,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    **kwargs: Any,
) -> PredictiveCheck:
    r"""Posterior predictive p-values :math:`P(T(x^{\mathrm{rep}}) > T(x) \mid x)` of each site.

    New data are drawn given draws of the guide. As these have seen the data, a right model gives
    p-values nearer to 1/2 than uniform ones: an extreme one tells, a moderate one little. See
    :func:`loo_pit`, whose values are uniform.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; only drawn from.
        statistics: functions from data ``(K, *plates, *event)`` of one site, NaN where they are
            missing, to ``(K,)``, by name; by default mean, standard deviation, least and largest
            of all entries.
        num_samples: K.
        chunk_size: draws at a time; by default as many as bound the memory.

    Raises:
        ValueError: programs that do not fit each other, or a count below 1.

    References:
        Gelman, Meng, Stern (1996), *Posterior predictive assessment of model fitness via
        realized discrepancies*, Statistica Sinica 6, section 2.

    Example:
        Data with one outlier that no Normal makes.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
        >>> def guide(x):
        ...     pyro.sample("mean", dist.Normal(x.sum() / 51, 51**-0.5))
        >>> x = torch.cat([torch.linspace(-2.0, 2.0, 49), torch.tensor([9.0])])
        >>> predictive_check(model, guide, x).off
        ['x: sd', 'x: largest']
    """
    mixing = mixing_of(None, otherwise=DSIVI(num_mixing=0, num_prior_mixing=1))
    unknown = UnknownRatio()
    chunks = Chunks(ELBO, model, guide, args, kwargs, num_samples, chunk_size, unknown, mixing)
    of = _DEFAULT if statistics is None else statistics
    data = observed_data(chunks, with_discrete_draws(chunks, chunks.probe))
    parts: dict[str, list[Tensor]] = {}
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        for site, draws in posterior_predictive(chunks, particles).items():
            new = _with_gaps(draws.values, data[site].values)
            for name, statistic in of.items():
                parts.setdefault(f"{site}: {name}", []).append(statistic(new))
    seen = {
        f"{site}: {name}": statistic(_with_gaps(draws.values, draws.values))[0]
        for site, draws in data.items()
        for name, statistic in of.items()
    }
    return PredictiveCheck(seen, {name: torch.cat(parts[name]) for name in seen})


def _mid_p_value(drawn: Tensor, seen: Tensor) -> float:
    above, ties = (drawn > seen).sum().item(), (drawn == seen).sum().item()
    return (above + 0.5 * (ties + 1)) / (len(drawn) + 1)


def _with_gaps(values: Tensor, like: Tensor) -> Tensor:
    """Floating point, and NaN where ``like`` has it."""
    missing = like.isnan()
    values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    return torch.where(missing, torch.nan, values)


def _entries(values: Tensor) -> Tensor:  # (K, n)
    """All that are not missing."""
    flat = values.reshape(len(values), -1)
    return flat[:, ~flat[0].isnan()]


_DEFAULT: dict[str, Statistic] = {
    "mean": lambda values: _entries(values).mean(1),
    "sd": lambda values: _entries(values).std(1, correction=0),
    "least": lambda values: _entries(values).amin(1),
    "largest": lambda values: _entries(values).amax(1),
}
