"""Where each datum lies in what is predicted of it without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.correction import check_exact, in_plates
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.missing import NoRatio
from pyro_lvm.diagnostics.predictive import log_likelihood, observed_data, posterior_predictive
from pyro_lvm.diagnostics.predictive import prior_and_predictive as prior_predictive
from pyro_lvm.diagnostics.sbc_curves import Curves
from pyro_lvm.diagnostics.thresholds import MAX_SHARE_OF_DATA, max_khat
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.objectives import ELBO
from pyro_lvm.particles import Particles
from pyro_lvm.weights import pareto_smooth

__all__ = ["LooPit", "loo_pit"]

Program = Callable[..., Any]

_NUM_PLACES = 40  # between which the curve of all values is looked at
_ADVICE = (
    "The model predicts data that are not like these: too low or too high (a curve on one side of "
    "0), too narrow or too wide (a curve that crosses it). Look at its likelihood."
)
_KHAT_ADVICE = "The guide's weights do not bear it: see log_evidence, or leave these data out."


@dataclass(frozen=True)
class LooPit:
    r"""Probabilities :math:`P(x^{\mathrm{new}}_n \le x_n \mid x_{-n})`, uniform in a right model.

    Attributes:
        values: by observed site ``(*plates, *event)``; where ties are possible, and for the
            draws' number, a random point between the two ends. Entries that are missing have
            a uniform random number.
        khat: by site ``(*plates,)``, of the weights that leave a datum out; 0 where none were
            needed.
        num_event_dims: by site, the last dims of ``values``.
        num_samples: draws per datum.

    Example:
        Data that all lie below the middle of what is predicted.

        >>> found = LooPit({"x": torch.rand(100) / 2}, {"x": torch.zeros(100)}, {"x": 0}, 1000)
        >>> found.curves["x"].off, found.verdict().status
        (['x'], <Status.FAIL: 'fail'>)
    """

    values: Mapping[str, Tensor]
    khat: Mapping[str, Tensor]
    num_event_dims: Mapping[str, int]
    num_samples: int

    @cached_property
    def curves(self) -> dict[str, Curves]:
        """By site: the ECDF of the values of each event entry over all data, and its test.

        The p-values are exact for independent data.
        """
        return {name: self._curves(name) for name in self.values}

    def _curves(self, name: str) -> Curves:
        values, event_dim = self.values[name], self.num_event_dims[name]
        event = values.shape[values.dim() - event_dim :]
        places = (values.reshape(-1, event.numel()) * _NUM_PLACES).long()
        labels = [name] if not event_dim else [f"{name}[{i}]" for i in range(event.numel())]
        limits = torch.arange(1, _NUM_PLACES, device="cpu")
        return Curves.of(places.clamp(max=_NUM_PLACES - 1).cpu(), limits, _NUM_PLACES, (*labels,))

    @property
    def khat_share(self) -> float:
        """Share of data whose weights fail."""
        flat = torch.cat([khat.flatten() for khat in self.khat.values()])
        return 1 - (flat < max_khat(self.num_samples)).double().mean().item()

    def summary(self) -> dict[str, float]:
        """The least p-value of each site, adjusted for the number of its entries, by name."""
        least = {f"pit_p_{n}": float(c.adjusted.min()) for n, c in self.curves.items()}
        return least | {"pit_khat_high": self.khat_share}

    def verdict(self) -> Verdict:
        """Whether the values are uniform."""
        worst = {name: curves.worst() for name, curves in self.curves.items()}
        told = ", ".join(
            f"{self.curves[name].labels[i]}: {self.curves[name].p_text(i)}"
            for name, i in worst.items()
        )
        off = [label for curves in self.curves.values() for label in curves.off]
        if self.khat_share > MAX_SHARE_OF_DATA:
            finding = f"the weights fail for {100 * self.khat_share:.3g} % of the data ({told})."
            return Verdict("loo-pit", Status.WARN, finding, _KHAT_ADVICE)
        if not off:
            finding = f"data lie where they are predicted without them ({told})."
            return Verdict("loo-pit", Status.PASS, finding)
        finding = f"data do not lie where they are predicted without them ({told})."
        return Verdict("loo-pit", Status.FAIL, finding, _ADVICE)


def loo_pit(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    **kwargs: Any,
) -> LooPit:
    r"""Leave-one-out probability integral transform of every observed entry.

    A datum with latents of its own is left out whole: it is predicted from the prior of these.
    Where data share latents, draws of the guide are weighed by
    :math:`p(x, z) / (q(z \mid x) \, p(x_n \mid z))`, Pareto-smoothed for each datum: weights that
    leave it out, and that correct the guide too. What is integer, or has ties, is placed at
    random between the two ends, so that its values are uniform as well.

    Parameters are held fixed at what all data made of them: the model is found to be a little
    better than it is, by an amount that vanishes with many data for each parameter.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, with a density.
        num_samples: draws for each datum.
        chunk_size: draws at a time; by default as many as bound the memory.

    Raises:
        DensityError: a guide or prior without a density, or with mixing variables.
        PlateError: a minibatch beside a latent of all data.
        ValueError: programs that do not fit each other, or a count below 1.

    References:
        Gelfand, Dey, Chang (1992), *Model determination using predictive distributions*,
        Bayesian Statistics 4.
        Vehtari, Gelman, Gabry (2017), *Practical Bayesian model evaluation using leave-one-out
        cross-validation and WAIC*, arXiv:1507.04544.
        Czado, Gneiting, Held (2009), *Predictive model assessment for count data*, Biometrics
        65(4), for discrete data.

    Example:
        Normal data under a model with half of their standard deviation.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(mean, 0.5), obs=x)
        >>> def guide(x):
        ...     pyro.sample("mean", dist.Normal(4 * x.sum() / 401, 401**-0.5))
        >>> found = loo_pit(model, guide, torch.randn(100))
        >>> found.verdict().status
        <Status.FAIL: 'fail'>
    """
    chunks = Chunks(ELBO, model, guide, args, kwargs, num_samples, chunk_size, NoRatio())
    check_exact(chunks)
    observed = observed_data(chunks, with_discrete_draws(chunks, chunks.probe))
    parts: dict[str, list[_Part]] = {name: [] for name in observed}
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        for name, part in _parts(chunks, particles, observed):
            parts[name].append(part)
    placed = {name: _placed(observed[name].values[0], found) for name, found in parts.items()}
    return LooPit(
        {name: values for name, (values, _) in placed.items()},
        {name: khat for name, (_, khat) in placed.items()},
        {name: draws.values.dim() - 1 - len(draws.plates) for name, draws in observed.items()},
        num_samples,
    )


class _Part(NamedTuple):
    """Some draws: -1, 0 or 1 where the new datum is below, at or above it, and log-weights."""

    sides: Tensor  # (k, *plates, *event), int8
    log_weights: Tensor  # (k, *plates)


def _parts(
    chunks: Chunks, particles: Particles, observed: Mapping[str, Plated]
) -> Iterator[tuple[str, _Part]]:
    batch = particles.layout.names if particles.layout else ()
    count = len(particles.log_p)
    given = posterior_predictive(chunks, particles)
    fresh = prior_predictive(chunks, count, ())[1]
    for name, scored in log_likelihood(chunks, particles).items():
        is_alone = bool(batch) and set(scored.plates) == set(batch)
        new = (fresh if is_alone else given)[name].values
        if is_alone:
            log_weights = torch.zeros_like(scored.values)
        else:
            log_weights = in_plates(particles.log_weights, scored, batch) - scored.values
        sides = torch.sign(new - observed[name].values).nan_to_num().to(torch.int8)
        yield name, _Part(sides, log_weights)


def _placed(data: Tensor, parts: list[_Part]) -> tuple[Tensor, Tensor]:
    """The values ``(*plates, *event)`` and k-hat ``(*plates,)`` from all draws."""
    sides = torch.cat([part.sides for part in parts])
    smoothed, khat = pareto_smooth(torch.cat([part.log_weights for part in parts]))
    count = len(sides)
    weights = count * torch.softmax(smoothed, 0)  # of mean 1
    weights = weights.reshape(*weights.shape, *[1] * (sides.dim() - weights.dim()))
    below, at = (torch.where(sides == side, weights, 0.0).sum(0) for side in (-1, 0))
    point = torch.rand_like(below)
    values = (below + point * (at + 1)) / (count + 1)
    missing = data.isnan() if data.is_floating_point() else torch.zeros_like(data).bool()
    return torch.where(missing, point, values), khat
