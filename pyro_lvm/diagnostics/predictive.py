"""What ArviZ wants to know of each chunk of draws: predictions, likelihoods, weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from inspect import signature

import torch
from torch import Tensor, nn

from pyro_lvm.diagnostics.chunks import Chunks, Plated, is_factor
from pyro_lvm.diagnostics.deterministics import Deterministics, is_deterministic
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.filled import as_floating, observed_entries
from pyro_lvm.diagnostics.posterior import latent_draws
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site

__all__ = ["collect"]

Draws = dict[str, Plated]


def collect(chunks: Chunks, optional: Container[str]) -> dict[str, Draws]:
    """All chunks' draws by ArviZ group and variable, on the CPU; data have one leading draw.

    Args:
        optional: which of posterior_predictive, log_likelihood and prior to make too.
    """
    parts: dict[str, dict[str, list[Plated]]] = defaultdict(lambda: defaultdict(list))
    follow = Deterministics(chunks)
    for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
        for group, variables in _groups(chunks, particles, follow, optional).items():
            for name, draws in variables.items():
                parts[group][name].append(Plated(draws.plates, draws.values.cpu()))
    drawn = {
        group: {
            name: Plated(draws[0].plates, torch.cat([part.values for part in draws]))
            for name, draws in variables.items()
        }
        for group, variables in parts.items()
    }
    observed = observed_data(chunks, with_discrete_draws(chunks, chunks.probe))
    constant = constant_data(chunks, observed)
    return {**drawn, "observed_data": observed, "constant_data": constant}


def _groups(
    chunks: Chunks, particles: Particles, follow: Deterministics, optional: Container[str]
) -> dict[str, Draws]:
    latents, count = latent_draws(chunks, particles), len(particles.log_p)
    posterior = latents | follow.given(particles.values, count)
    groups = {"posterior": posterior, "sample_stats": sample_stats(particles)}
    if "log_likelihood" in optional:
        groups["log_likelihood"] = log_likelihood(chunks, particles)
    if "posterior_predictive" in optional:
        groups["posterior_predictive"] = posterior_predictive(chunks, particles)
    if "prior" in optional:
        with follow.caught(count) as following:
            prior, groups["prior_predictive"] = prior_and_predictive(chunks, count, latents)
        groups["prior"] = prior | following
    return groups


def sample_stats(particles: Particles) -> Draws:
    """``log_p``, ``log_q``, ``log_weight`` of each draw, ``(K, *batch)`` nats per datum."""
    plates = particles.layout.names if particles.layout else ()
    return {
        "log_p": Plated(plates, particles.log_p),
        "log_q": Plated(plates, particles.log_q),
        "log_weight": Plated(plates, particles.log_weights),
    }


def observed_data(chunks: Chunks, particles: Particles) -> Draws:
    """The data by observed site, with one leading draw; NaN under a mask, whatever stood there."""
    return {name: _known(chunks, site) for name, site in _data_sites(particles.model)}


def _known(chunks: Chunks, site: Site) -> Plated:
    data = chunks.in_own_plates(site, site.value, 1)
    is_known = chunks.in_own_plates(site, observed_entries(site), 2).values[:1]
    if is_known.all():
        return data
    return Plated(data.plates, torch.where(is_known, as_floating(data.values), torch.nan))


def constant_data(chunks: Chunks, observed: Draws) -> Draws:
    """Tensor arguments of the call that are not, nor are named like, what the model observes."""
    model = chunks.model
    function = model.forward if isinstance(model, nn.Module) else model
    arguments = signature(function).bind(*chunks.args, **chunks.kwargs).arguments
    data = [draws.values[0] for draws in observed.values()]
    return {
        name: Plated((), value.detach()[None])
        for name, value in arguments.items()
        if isinstance(value, Tensor)
        and name not in observed
        and not any(_same(value, datum) for datum in data)
    }


def _same(value: Tensor, datum: Tensor) -> bool:
    """Up to what the datum has masked."""
    return value.shape == datum.shape and bool(((value == datum) | datum.isnan()).all())


def log_likelihood(chunks: Chunks, particles: Particles) -> Draws:
    """log p(x | z_k) of each observed site, ``(K, *plates)`` nats; 0 under a mask."""
    return {
        name: chunks.in_own_plates(
            site,
            masked_log_prob(site.fn, site.value, site.mask, is_observed=True),
            len(particles.log_p),
            event_dim=0,
        )
        for name, site in _data_sites(particles.model)
    }


def posterior_predictive(chunks: Chunks, particles: Particles) -> Draws:
    """Data drawn anew given each draw of the latents, masked entries too."""
    sites = chunks.simulate(len(particles.log_p), particles.values)
    return _replicated(chunks, sites, len(particles.log_p))


def prior_and_predictive(
    chunks: Chunks, num_draws: int, latents: Iterable[str]
) -> tuple[Draws, Draws]:
    """Draws of the ``latents`` from the model alone, and the data that come with them."""
    sites = chunks.simulate(num_draws, {})
    prior = {n: chunks.in_own_plates(sites[n], sites[n].value, num_draws) for n in latents}
    return prior, _replicated(chunks, sites, num_draws)


def _replicated(chunks: Chunks, sites: Mapping[str, Site], num_draws: int) -> Draws:
    return {
        name: chunks.in_own_plates(site, site.value, num_draws) for name, site in _data_sites(sites)
    }


def _data_sites(sites: Mapping[str, Site]) -> Iterator[tuple[str, Site]]:
    """Observed sites under the name the user gave them; factors and functions are not data."""
    for name, site in sites.items():
        observed = site.is_observed or site.infer.get("was_observed")
        if observed and not (is_factor(site.fn) or is_deterministic(site.fn, site.infer)):
            yield name.removesuffix("_observed") if _is_half(name, sites) else name, site


def _is_half(name: str, sites: Mapping[str, Site]) -> bool:
    """Whether ``obs_mask`` split the site in an observed and an unobserved half."""
    return f"{name.removesuffix('_observed')}_unobserved" in sites
