"""Posterior collapse: which latent layers and units say something of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of
from pyro_lvm.diagnostics.posterior import latent_draws
from pyro_lvm.diagnostics.running_weights import Moments
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.objectives import DSIVI, ELBO
from pyro_lvm.particles import Particles

__all__ = ["CollapseReport", "active_units", "collapse_report"]

Program = Callable[..., Any]

_NEGLIGIBLE = 0.01  # nats; the KL bounds what a site can tell of a datum
_ADVICE = (
    "Warm the KL up (beta=LinearWarmup(steps / 4)), give layers free_bits, batch_norm=True in "
    "ladders, or take the layer out."
)


@dataclass(frozen=True)
class CollapseReport:
    r"""How much each latent site says of the data.

    Sites are in the order of their names: layers of a hierarchy from the data up.

    Attributes:
        kl: by site, scalar nats per datum: mean of log q - log p of the site given those that
            each program draws it from. Their sum is what the ELBO pays for all latents. It is
            a KL divergence where both programs condition on the same sites, and may be below 0
            where they do not. A site without a density in both programs is left out.
        activity: by site, shape of one datum's value: the variance over the data of the
            guide's mean, :math:`\mathrm{Var}_x\, E_{q(z \mid x)}[z]`.
        threshold: a unit is active where its activity is above.

    Example:
        >>> kl, activity = {"z": torch.tensor(0.7)}, {"z": torch.tensor([0.5, 0.001])}
        >>> found = CollapseReport(kl, activity, threshold=0.01)
        >>> found.active["z"], found.collapsed
        (tensor([ True, False]), [])
        >>> print(found.verdict())
        [pass] collapse: active units: z 1 of 2 (KL 0.70).
    """

    kl: Mapping[str, Tensor]
    activity: Mapping[str, Tensor]
    threshold: float

    @property
    def active(self) -> dict[str, Tensor]:
        """Which units are active, by site, shape of one datum's value."""
        return {name: values > self.threshold for name, values in self.activity.items()}

    @property
    def collapsed(self) -> list[str]:
        """The sites that say nothing of the data: no unit is active, or |KL| is below 0.01 nats.

        Below a layer that is in use, units are active already by the mean that they are given;
        without a KL they add nothing to it.
        """
        return [name for name, units in self.active.items() if not units.any() or self._idle(name)]

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Active units and all units, by site."""
        return {name: (int(units.sum()), units.numel()) for name, units in self.active.items()}

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        kl = {f"kl_{name}": value.item() for name, value in self.kl.items()}
        return kl | {f"active_units_{name}": count for name, (count, _) in self.counts.items()}

    def verdict(self) -> Verdict:
        """Fails if all sites have collapsed, warns if one has, skips if no unit was looked at."""
        finding = f"active units: {self._listed() or 'no site has a mean for each datum'}."
        if not self.activity:
            return Verdict("collapse", Status.SKIP, finding)
        if not self.collapsed:
            return Verdict("collapse", Status.PASS, finding)
        status = Status.FAIL if len(self.collapsed) == len(self.counts) else Status.WARN
        return Verdict("collapse", status, finding, _ADVICE)

    def _idle(self, name: str) -> bool:
        return name in self.kl and bool(self.kl[name].abs() < _NEGLIGIBLE)

    def _listed(self) -> str:
        kl = {name: f" (KL {value:z.2f})" for name, value in self.kl.items()}
        sites = self.counts.items()
        return ", ".join(f"{name} {c} of {units}{kl.get(name, '')}" for name, (c, units) in sites)


def active_units(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 100,
    chunk_size: int | None = None,
    threshold: float = 0.01,
    **kwargs: Any,
) -> dict[str, Tensor]:
    r"""Which units of each latent site vary with the data: :math:`\mathrm{Var}_x\, E_q[z] > 0.01`.

    See :func:`collapse_report`, which also gives the variances, for arguments and errors.

    Returns:
        By site, booleans of the shape of one datum's value.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5.2.

    Example:
        The second unit is drawn from the prior whatever the datum.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         loc = torch.stack([x / 2, torch.zeros_like(x)], -1)
        ...         scale = torch.tensor([0.5**0.5, 1.0])
        ...         pyro.sample("z", dist.Normal(loc, scale).to_event(1))
        >>> active_units(model, guide, torch.linspace(-2, 2, 100))
        {'z': tensor([ True, False])}
    """
    report = collapse_report(
        model,
        guide,
        *args,
        num_samples=num_samples,
        chunk_size=chunk_size,
        threshold=threshold,
        **kwargs,
    )
    return report.active


def collapse_report(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 100,
    chunk_size: int | None = None,
    threshold: float = 0.01,
    **kwargs: Any,
) -> CollapseReport:
    r"""KL and active units of every latent site, from draws of the guide, without gradient.

    The variance over the data of a mean of K draws is too high by the mean variance of the
    draws over K; this is taken off, so that collapsed units are near 0 for any K. Sites with
    integer values have no mean and are left out, as are sites outside the data's plates, and all
    sites of a single datum.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; modules with batch normalisation or dropout should be in evaluation
            mode.
        num_samples: K, draws per datum, 2 or more.
        chunk_size: draws at a time; by default as many as bound the memory.
        threshold: a unit is active where its activity is above.

    Raises:
        ValueError: programs that do not fit each other, or a count below 2.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5.2, for the activity.
        Sønderby, Raiko, Maaløe, Sønderby, Winther (2016), *Ladder variational autoencoders*,
        arXiv:1602.02282, section 3, for the KL of each layer.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 0.5**0.5))
        >>> report = collapse_report(model, guide, torch.tensor([-1.0, 1.0]), num_samples=2000)
        >>> report.kl["z"]  # exact: (log 2 - 1/2 + x^2 / 4) / 2 = 0.2216
        tensor(0.2238)
        >>> report.activity["z"]  # exact: Var(x / 2) = 0.5
        tensor(0.4961)
    """
    if num_samples < 2:
        hint = "Pass num_samples=100."
        raise PyroLVMError(explain("num_samples", "an integer >= 2", repr(num_samples), hint))
    mixing = mixing_of(None, otherwise=DSIVI(num_mixing=0, num_prior_mixing=1))
    unknown = UnknownRatio()
    chunks = Chunks(ELBO, model, guide, args, kwargs, num_samples, chunk_size, unknown, mixing)
    moments: dict[str, Moments] = {}
    terms: dict[str, list[Tensor]] = {}
    for particles in chunks:
        for name, draws in latent_draws(chunks, particles).items():
            if (found := _by_datum(draws, particles)) is not None:
                new = Moments.of(found)
                moments[name] = moments[name].joined(new) if name in moments else new
        for name, term in ({} if chunks.mixes else _log_ratios(particles)).items():
            terms.setdefault(name, []).append(term)
    kl = {name: torch.cat(terms[name]).mean() for name in sorted(terms, key=_place)}
    activity = {name: _activity(moments[name]) for name in sorted(moments, key=_place)}
    return CollapseReport(kl, activity, threshold)


def _place(name: str) -> tuple[int, str]:
    """Sorts "z2" before "z10"."""
    return len(name), name


def _by_datum(draws: Plated, particles: Particles) -> Tensor | None:  # (K, data, *units)
    """Draws of a real site that each of several data has of its own; else None."""
    batch = particles.layout.names if particles.layout else ()
    if not draws.values.is_floating_point() or not batch or not set(batch) <= set(draws.plates):
        return None
    places = [1 + draws.plates.index(name) for name in batch]
    rows = draws.values.movedim(places, list(range(1, 1 + len(batch)))).flatten(1, len(batch))
    return rows if rows.shape[1] > 1 else None


def _log_ratios(particles: Particles) -> dict[str, Tensor]:
    """log q - log p ``(K, *batch)`` of each latent site that has both."""
    shape = particles.log_p.shape
    return {
        name: (part.log_q - part.log_p).expand(shape)
        for name, part in particles.parts.items()
        if part.log_p is not None and part.log_q is not None
    }


def _activity(moments: Moments) -> Tensor:  # (*units,)
    """Variance of the mean over data, without what the noise of the draws adds."""
    return moments.mean.var(0) - moments.standard_error.square().mean(0)
