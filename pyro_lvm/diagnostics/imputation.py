"""What the unobserved entries may have been: draws of them given the observed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centre, best_guess, entry_statistics
from pyro_lvm.diagnostics.chunks import Chunks, check_count
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.drawn_entries import drawn_entries, entries_name, with_entries
from pyro_lvm.diagnostics.filled import Filled, data_site, observed_entries
from pyro_lvm.diagnostics.imputation_chains import MetropolisWithinGibbs
from pyro_lvm.diagnostics.imputation_sweeps import GibbsSweeps
from pyro_lvm.diagnostics.imputations import Imputations
from pyro_lvm.diagnostics.missing import NoRatio, mixing_of, ratio_of
from pyro_lvm.diagnostics.resampling import Resampled
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import DSIVI, IWAE
from pyro_lvm.particles import Particles
from pyro_lvm.weights import effective_sample_size, pareto_khat

__all__ = ["impute"]

Program = Callable[..., Any]
Method = Callable[[Chunks, str, int], Filled]


def impute(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 10,
    num_particles: int = 1000,
    method: str | MetropolisWithinGibbs | GibbsSweeps = "sir",
    site: str = "x",
    chunk_size: int | None = None,
    objective: Objective | None = None,
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

    "mh" runs chains instead, with the guide given *completed* data as proposal; it needs no
    particles and its limit is exact, but each imputation costs many moves. See
    :class:`MetropolisWithinGibbs` for its options, and compare chains by R-hat of
    :meth:`Imputations.to_inference_data`. It takes data that are NaN where they are missing.

    "gibbs" runs chains of the conditionals that the guide was given by
    :class:`~pyro_lvm.objectives.VGI`, on the rows that are the first argument; the model is left
    aside. See :class:`GibbsSweeps`.

    Entries are unobserved where the site is masked: by :class:`~pyro_lvm.missing.Incomplete`,
    ``poutine.mask`` or ``dist.mask``. Under :class:`~pyro_lvm.missing.NotAtRandom` they are those
    of the particles, weighted by what their being missing tells. Memory does not grow with K but
    for the weights.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, given the observed entries.
        num_samples: M, imputations; "mean" makes one.
        num_particles: K, draws of the guide; many more than M, or the M are the same few.
        method: "sir", "mean", "mh" or "gibbs"; or a :class:`MetropolisWithinGibbs` or
            :class:`GibbsSweeps` for their options.
        site: the observed site.
        chunk_size: draws at a time; by default as many as bound the memory.
        objective: what the programs were trained by, where the guide or the prior has no
            density; of a semi-implicit one, mixing draws are averaged without it too.

    Returns:
        Imputations ``(M, *data)``, and their quality for each datum.

    Raises:
        ProgramError: no observed site of that name, an unknown method, or programs that do not
            fit each other or the method.
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
    fill = _method(method)
    check_count("num_samples", num_samples)
    if isinstance(fill, GibbsSweeps):
        return fill(guide, next(iter([*args, *kwargs.values()]), None), num_samples)
    ratio = ratio_of(objective, otherwise=NoRatio())
    mixing = mixing_of(objective, otherwise=DSIVI())
    chunks = Chunks(IWAE, model, guide, args, kwargs, num_particles, chunk_size, ratio, mixing)
    probe = with_discrete_draws(chunks, chunks.probe)
    data, count = data_site(probe, site), len(probe.log_p)
    filled = fill(chunks, site, num_samples)
    observed = chunks.in_own_plates(data, observed_entries(data), count).values[:1]
    value = chunks.in_own_plates(data, data.value, count).values[:1]
    weights = filled.log_weights
    return Imputations(
        values=torch.where(observed, value, filled.values.to(value.dtype)),
        observed=observed[0],
        effective_sample_size=None if weights is None else effective_sample_size(weights),
        khat=None if weights is None else pareto_khat(weights),
        acceptance=filled.acceptance,
        num_chains=filled.num_chains,
    )


def _by_resampling(chunks: Chunks, site: str, num_samples: int) -> Filled:
    """Draws of all entries."""
    resampled, log_weights = Resampled(num_samples), []
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        resampled.add(with_entries(particles, site), _layout(particles))
        log_weights.append(particles.log_weights)
    drawn = chunks.simulate(num_samples, resampled.values)[site]
    entries = resampled.values.get(entries_name(site), drawn.value)
    values = chunks.in_own_plates(drawn, entries, num_samples).values
    return Filled(values, torch.cat(log_weights))


def _by_mean(chunks: Chunks, site: str, num_samples: int) -> Filled:
    """The one best guess of all entries."""
    centre, log_weights = Centre(), []
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        data, count = particles.model[site], len(particles.log_p)
        statistics, last = entry_statistics(data.fn, drawn_entries(particles, site))
        own = [chunks.in_own_plates(data, s, count).values for s in statistics]
        spread = chunks.in_own_plates(data, _unfolded(particles), count, event_dim=0).values
        weights = spread.reshape(*spread.shape, *[1] * data.fn.event_dim)
        centre.add(torch.stack(own, 1), weights.unsqueeze(1))
        log_weights.append(particles.log_weights)
    return Filled(best_guess(centre.average, last).unsqueeze(0), torch.cat(log_weights))


_METHODS: Mapping[str, Method | GibbsSweeps] = {
    "sir": _by_resampling,
    "mean": _by_mean,
    "mh": MetropolisWithinGibbs(),
    "gibbs": GibbsSweeps(),
}


def _method(method: str | MetropolisWithinGibbs | GibbsSweeps) -> Method | GibbsSweeps:
    if isinstance(method, MetropolisWithinGibbs | GibbsSweeps):
        return method
    if method not in _METHODS:
        expected = f"one of {list(_METHODS)}, a MetropolisWithinGibbs or GibbsSweeps"
        raise ProgramError(explain("method", expected, repr(method), "Pass method='sir'."))
    return _METHODS[method]


def _unfolded(particles: Particles) -> Tensor:
    return _layout(particles).unfold(particles.log_weights)


def _layout(particles: Particles) -> Layout:
    """Of particles that chunks made, which have one."""
    return cast(Layout, particles.layout)
