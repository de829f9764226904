"""What the unobserved entries may have been: draws of them given the observed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centre, best_guess, entry_statistics
from pyro_lvm.diagnostics.chunks import Chunks, check_count, is_factor
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.resampling import Resampled
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.masking import fill_masked
from pyro_lvm.nn import check_choice
from pyro_lvm.objectives import IWAE
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site
from pyro_lvm.weights import effective_sample_size, pareto_khat

__all__ = ["Imputations", "impute"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class Imputations:
    """Completed data, and how far to trust them.

    Attributes:
        values: ``(M, *data)``; observed entries are the data's own, bit for bit.
        observed: bool ``(*data,)``, True = observed.
        effective_sample_size: ``(*batch,)`` particles, of ``num_particles``.
        khat: ``(*batch,)``, Pareto shape of the weights. Above 0.7 the guide misses where the
            posterior given the observed entries is, and the imputations are not to be trusted.
    """

    values: Tensor
    observed: Tensor
    effective_sample_size: Tensor
    khat: Tensor


def impute(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 10,
    num_particles: int = 1000,
    method: str = "sir",
    site: str = "x",
    chunk_size: int | None = None,
    **kwargs: Any,
) -> Imputations:
    r"""Fill in the unobserved entries of an observed site, without gradient.

    With K draws of the guide and their weights

    .. math:: w_k \propto p(x_{\mathrm{obs}} \mid z_k)\, p(z_k) / q(z_k \mid x_{\mathrm{obs}})

    "sir" (sampling importance resampling) draws particles in proportion to their weights and
    the entries given them: multiple imputations, draws of :math:`p(x_{\mathrm{mis}} \mid
    x_{\mathrm{obs}})` as K grows. "mean" is the single imputation of least expected squared
    error, :math:`\sum_k w_k E[x_{\mathrm{mis}} \mid z_k]`, of entries with finitely many classes
    the most probable one; it leaves out all uncertainty, as statistics of completed data must
    not. A datum without observed entries gets those of the model's own, p(x).

    Entries are unobserved where the site is masked: by :class:`~pyro_lvm.missing.Incomplete`,
    ``poutine.mask`` or ``dist.mask``. Memory does not grow with K but for the weights.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, given the observed entries.
        num_samples: M, imputations by "sir"; "mean" makes one.
        num_particles: K, draws of the guide; many more than M, or the M are the same few.
        method: "sir" or "mean".
        site: the observed site.
        chunk_size: draws at a time; by default as many as bound the memory.

    Returns:
        Imputations ``(M, *data)``, and the quality of the weights of each datum.

    Raises:
        ProgramError: no observed site of that name, an unknown method, or programs that do not
            fit each other.
        PyroLVMError: a count below 1.

    References:
        Mattei, Frellsen (2019), *MIWAE: deep generative modelling and imputation of incomplete
        data sets*, arXiv:1812.02633, for single and multiple imputation.
        Rubin (1987), *Multiple imputation for nonresponse in surveys*.

    Example:
        Two equal numbers with noise of scale 1/10, the second unknown.

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_lvm.missing import Incomplete
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         row = dist.Normal(z.unsqueeze(-1), torch.full((2,), 0.1)).to_event(1)
        ...         pyro.sample("x", row, obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x[:, 0], 0.1))
        >>> x = torch.tensor([[0.5, float("nan")], [-1.0, float("nan")]])
        >>> imputed = impute(Incomplete(model), guide, x, num_samples=200)
        >>> imputed.values.shape
        torch.Size([200, 2, 2])
        >>> imputed.values.mean(0)
        tensor([[ 0.5000,  0.4955],
                [-1.0000, -0.9762]])
    """
    check_choice("method", method, _METHODS)
    check_count("num_samples", num_samples)
    chunks = Chunks(IWAE, _Fill()(model), guide, args, kwargs, num_particles, chunk_size)
    probe = with_discrete_draws(chunks, chunks.probe)
    data, count = _data_site(probe, site), len(probe.log_p)
    filled, log_weights = _METHODS[method](chunks, site, num_samples)
    observed = chunks.in_own_plates(data, _observed(data), count).values[:1]
    value = chunks.in_own_plates(data, data.value, count).values[:1]
    return Imputations(
        values=torch.where(observed, value, filled.to(value.dtype)),
        observed=observed[0],
        effective_sample_size=effective_sample_size(log_weights),
        khat=pareto_khat(log_weights),
    )


def _by_resampling(chunks: Chunks, site: str, num_samples: int) -> tuple[Tensor, Tensor]:
    """Draws ``(M, *data)`` of all entries, and log-weights ``(K, *batch)``."""
    resampled, log_weights = Resampled(num_samples), []
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        resampled.add(particles, _layout(particles))
        log_weights.append(particles.log_weights)
    drawn = chunks.simulate(num_samples, resampled.values)[site]
    values = chunks.in_own_plates(drawn, drawn.value, num_samples).values
    return values, torch.cat(log_weights)


def _by_mean(chunks: Chunks, site: str, num_samples: int) -> tuple[Tensor, Tensor]:
    """The best guess ``(1, *data)`` of all entries, and log-weights ``(K, *batch)``."""
    centre, log_weights = Centre(), []
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        data, count = particles.model[site], len(particles.log_p)
        statistics, last = entry_statistics(data.fn)
        own = [chunks.in_own_plates(data, s, count).values for s in statistics]
        spread = chunks.in_own_plates(data, _unfolded(particles), count, event_dim=0).values
        weights = spread.reshape(*spread.shape, *[1] * data.fn.event_dim)
        centre.add(torch.stack(own, 1), weights.unsqueeze(1))
        log_weights.append(particles.log_weights)
    return best_guess(centre.average, last).unsqueeze(0), torch.cat(log_weights)


_METHODS: Mapping[str, Callable[[Chunks, str, int], tuple[Tensor, Tensor]]] = {
    "sir": _by_resampling,
    "mean": _by_mean,
}


class _Fill(Messenger):
    """Legal numbers for masked ones, which Pyro's own inference would score, NaN included."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] and not is_factor(msg["fn"]):
            msg["value"] = fill_masked(msg["fn"], msg["value"], msg["mask"])


def _unfolded(particles: Particles) -> Tensor:
    return _layout(particles).unfold(particles.log_weights)


def _layout(particles: Particles) -> Layout:
    """Of particles that chunks made, which have one."""
    return cast(Layout, particles.layout)


def _data_site(particles: Particles, name: str) -> Site:
    data = [n for n, s in particles.model.items() if s.is_observed and not is_factor(s.fn)]
    if name not in data:
        hint = "Name the observed site to be filled in by site=."
        expected = f"an observed site, one of {data}"
        raise ProgramError(explain("site", expected, repr(name), hint))
    return particles.model[name]


def _observed(site: Site) -> Tensor:
    """Where the site is not masked: what remains NaN when masked entries are filled."""
    return fill_masked(site.fn, torch.full_like(site.value, torch.nan), site.mask).isnan()
