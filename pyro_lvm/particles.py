"""Model + guide -> weighted particles: all that an objective sees of a Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple, Protocol

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_lvm.broadcasting import check_broadcasts
from pyro_lvm.checks import (
    check_masks,
    check_mixing,
    check_programs,
    check_site,
    is_imputed,
    nonfinite_data,
    record_checked,
)
from pyro_lvm.densities import guide_sites, log_prob, log_q_by_route
from pyro_lvm.enumeration import Enumerates, Enumerator, is_enumerated, is_summed_out, sum_out
from pyro_lvm.errors import PlateError, ProgramError, explain
from pyro_lvm.layout import Layout, Scale, scaled
from pyro_lvm.random_state import kept_random_state
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = [
    "Nature",
    "Part",
    "Particles",
    "Ratio",
    "assembled",
    "check_runs",
    "draw",
    "folded",
    "inspect",
    "joint_name",
    "names_within",
]

Relay = Callable[[Tensor], Tensor]


class Ratio(Protocol):
    """What stands in for densities: an estimate of log q(z | x) - log p(z) of some sites."""

    def covers(self, model: Mapping[str, Site], guide: Mapping[str, Site]) -> Sequence[str]:
        """The latent sites whose densities it replaces, in both programs."""

    def __call__(
        self,
        values: Mapping[str, Tensor],
        model: Mapping[str, Site],
        guide: Mapping[str, Site],
        args: Any,
        kwargs: Any,
    ) -> Tensor:
        """The log-ratio at ``values``, ``(K, *plates)`` nats."""


_PLUS = " + "


def joint_name(names: Iterable[str]) -> str:
    """What ``parts`` call several sites that only have one sum."""
    return _PLUS.join(names)


def names_within(name: str, particles: Particles) -> list[str]:
    """The sites that a part is of."""
    is_site = name in particles.model or name in particles.guide
    return [name] if is_site else name.split(_PLUS)


class Part(NamedTuple):
    """Log-probabilities of one site in model and guide, ``(K or 1, *batch)`` nats or None."""

    log_p: Tensor | None
    log_q: Tensor | None


@dataclass(frozen=True)
class Particles:
    r"""K weighted draws of the latent variables of each datum.

    Attributes:
        log_p: ``(K, *batch)``, :math:`\log p(x, z_k)` in nats per datum, no plate scale.
        log_q: ``(K, *batch)``, :math:`\log q(z_k \mid x)`.
        scale: N/B and the like, broadcastable to ``(*batch,)``; multiplies the bound.
        parts: the same log-probabilities by site.
        values: latent values by site, ``(K, *plates, *event)``.
        log_score: ``(K, *batch)``, :math:`\log q` of the sites without ``rsample``.
        log_q_direct: ``(K, *batch)``, :math:`\log q` at fixed draws, where ``log_q`` has the
            path derivative only.
        model: the model's recorded sites, and
        guide: the guide's.
        layout: the dims of all this; None for particles made by hand.

    Example:
        >>> weights = torch.tensor([[1 / 6], [1 / 3], [1 / 2]])  # (K=3, batch=1)
        >>> particles = Particles(log_p=weights.log(), log_q=torch.zeros(3, 1))
        >>> particles.log_weights.exp().sum(0)
        tensor([1.])
    """

    log_p: Tensor
    log_q: Tensor
    scale: float | Tensor = 1.0
    parts: Mapping[str, Part] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)
    log_score: Tensor | None = None
    log_q_direct: Tensor | None = None
    model: Mapping[str, Site] = field(default_factory=dict)
    guide: Mapping[str, Site] = field(default_factory=dict)
    layout: Layout | None = None

    @property
    def log_weights(self) -> Tensor:
        """``(K, *batch)`` nats."""
        return self.log_p - self.log_q

    @property
    def plates(self) -> dict[str, tuple[str | None, ...]]:
        """For each latent site, the plate at each plate dim of its value, left to right."""
        layout = self.layout
        return {} if layout is None else {n: layout.plates(self.model[n]) for n in self.values}

    @property
    def score_sites(self) -> list[str]:
        """Latent sites that cannot be reparameterised."""
        imputed = {n: s for n, s in self.model.items() if n not in self.guide and is_imputed(s)}
        return [n for n, s in {**imputed, **self.guide}.items() if s.needs_score]


class Nature(NamedTuple):
    """What one look at two programs tells: dims of plates, and whether sites are summed out."""

    max_plate_nesting: int
    enumerates: bool


def inspect(model: Program, guide: Program, args: Any, kwargs: Any, mixes: bool = False) -> Nature:
    """Check both programs on one draw and return what they need.

    Leaves the random state as it was. ``mixes`` tells that auxiliary sites are averaged out.

    Raises:
        ProgramError: names, plates or shapes that do not fit; see ``pyro_lvm.checks``.
    """
    with kept_random_state(), torch.no_grad():
        q = record_checked(guide, args, kwargs, Recorder(None, _ANY))
        given = {name: site.value for name, site in q.sites.items() if not site.is_observed}
        p = record_checked(model, args, kwargs, Recorder(None, _ANY, given, q.plates))
    check_programs(p.sites, q.sites, mixes)
    check_masks(p.sites, q.sites)
    sites = [*p.sites.values(), *q.sites.values()]
    for site in sites:
        check_site(site, {})
        if site.is_observed and (error := nonfinite_data(site)):
            raise error
    dims = [frame.dim for site in sites for frame in site.frames if frame.dim is not None]
    max_plate_nesting = -min(dims, default=0)
    with kept_random_state(), torch.no_grad():
        check_broadcasts(guide, args, kwargs, q, max_plate_nesting)
        check_broadcasts(model, args, kwargs, p, max_plate_nesting)
    marked = any(is_enumerated(p.sites[name]) for name in p.sites.keys() - q.sites.keys())
    return Nature(max_plate_nesting, marked)


_ANY = 1_000_000


def draw(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    *,
    num_particles: int,
    max_plate_nesting: int,
    path_only: bool = False,
    direct: bool = False,
    relay: Relay | None = None,
    detach: bool = False,
    enumerate_sites: bool = False,
    ratio: Ratio | None = None,
) -> Particles:
    r"""Run the guide once and the model on its draws, all K particles in one pass.

    Whether the two runs fit is :func:`check_runs`'s to say; :func:`inspect` looks in any case.

    Args:
        model: the generative program.
        guide: the program that draws the latent sites.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_particles: K.
        max_plate_nesting: P, dims reserved for plates.
        path_only: give ``log_q`` the derivative through the samples only,
            :math:`\partial_z \log q \cdot \partial_\phi z`.
        direct: give ``log_q_direct`` the rest of it.
        relay: an identity put between each reparameterised draw and whatever scores it.
        detach: give the draws no derivative at all.
        enumerate_sites: sum out the model's sites marked for it.
        ratio: stands in for the densities of the sites that it covers.

    Raises:
        Enumerates: there are such sites, and ``enumerate_sites`` is False.
    """
    nesting = max_plate_nesting
    q = record_checked(guide, args, kwargs, Recorder(num_particles, nesting, detach=detach))
    values = {n: s.value for n, s in q.sites.items() if not s.is_observed}
    passed = {n: relay(v) if relay and v.requires_grad else v for n, v in values.items()}
    recorder = Recorder(num_particles, nesting, passed, q.plates)
    program = Enumerator(nesting, passed)(model) if enumerate_sites else model
    p = record_checked(program, args, kwargs, recorder)
    if not enumerate_sites and any(is_enumerated(s) for n, s in p.sites.items() if n not in values):
        raise Enumerates
    covered = ratio.covers(p.sites, q.sites) if ratio else ()
    check_runs(p, q)
    model_sites = {n: s for n, s in p.sites.items() if not is_imputed(s) or n in values}
    drawn_sites = guide_sites(q.sites, p.sites)
    layout = Layout.of(model_sites, drawn_sites, nesting)
    log_p = {n: _log_p(s) for n, s in model_sites.items() if n not in covered}
    if path_only:
        routes = log_q_by_route(guide, args, kwargs, q, p.sites, passed, covered, direct)
        log_q = {n: route.path for n, route in routes.items()}
    else:
        routes = {}
        log_q = {n: log_prob(s) for n, s in drawn_sites.items() if n not in covered}
    particles = _assemble(p, q, layout, log_p, log_q, num_particles)
    if direct:
        terms = {n: r.direct for n, r in routes.items() if r.direct is not None}
        particles = _with_direct(particles, layout, terms)
    if ratio and covered:
        term = ratio(passed, p.sites, q.sites, args, kwargs)
        factor = _ratio_factor(layout, p.sites, q.sites, covered)
        particles = _with_ratio(particles, scaled(layout.fold(term), factor), covered)
    return particles


def check_runs(p: Recorder, q: Recorder, mixes: bool = False) -> None:
    """Raise where the two programs, as they ran, do not fit, while Pyro's validation is on.

    A mixing variable that is not averaged out is refused in any case: only runs with particles
    show it, so the first look does not.
    """
    if not mixes:
        check_mixing(q.sites)
    if not is_validation_enabled():
        return
    check_programs(p.sites, q.sites, mixes)
    check_masks(p.sites, q.sites)
    for recorder in (p, q):
        for site in recorder.sites.values():
            check_site(site, recorder.sizes)


def _with_direct(particles: Particles, layout: Layout, terms: Mapping[str, Tensor]) -> Particles:
    log_q = particles.log_q
    direct = [*folded(layout, terms, layout.guide_scales).values()]
    return replace(particles, log_q_direct=_total(direct, log_q, log_q.shape))


def _with_ratio(particles: Particles, term: Tensor, names: Sequence[str]) -> Particles:
    """The log-ratio as a log q of sites without prior: the prior is in it."""
    log_q = particles.log_q + term
    parts = {**particles.parts, joint_name(names): Part(None, term)}
    return replace(particles, log_q=log_q, parts=parts)


def _ratio_factor(
    layout: Layout, model: Mapping[str, Site], guide: Mapping[str, Site], names: Sequence[str]
) -> Scale:
    """What a log-ratio is multiplied with: the factor of its sites in both programs."""
    factors = [of[n] for of in (layout.model_scales, layout.guide_scales) for n in names]
    factor = layout.common(factors)
    masked = [n for n in names for s in (model[n], guide[n]) if s.mask not in (None, True)]
    if factor is None or masked:
        raise ProgramError(
            explain(
                f"sites {list(names)}",
                "one poutine.scale and no poutine.mask around them, in place of whose densities "
                "one ratio is estimated",
                "factors of their own" if factor is None else f"a mask around '{masked[0]}'",
                "Scale all of them alike, and mask the data's site alone.",
            )
        )
    return factor


def _assemble(
    p: Recorder,
    q: Recorder,
    layout: Layout,
    log_p: Mapping[str, Tensor],
    log_q: Mapping[str, Tensor],
    num_particles: int,
) -> Particles:
    p_parts = _p_parts(p, layout, log_p)
    q_parts = folded(layout, log_q, layout.guide_scales)
    particles = assembled(p, q, layout, p_parts, q_parts, num_particles)
    scored = [layout.fold(term) for term in _score_terms(p, q, log_q)]
    if not scored:
        return particles
    total = _total(scored, particles.log_p, particles.log_p.shape)
    return replace(particles, log_score=total)


def assembled(
    p: Recorder,
    q: Recorder,
    layout: Layout,
    p_parts: Mapping[str, Tensor],
    q_parts: Mapping[str, Tensor],
    num_particles: int,
) -> Particles:
    """Particles of two recorded runs, from their terms by site, ``(K or 1, *batch)``."""
    shape = (num_particles, *layout.shape)
    log_p = _total([*p_parts.values()], next(iter(p.sites.values())).value, shape)
    return Particles(
        log_p=log_p,
        log_q=_total([*q_parts.values()], log_p, shape),
        scale=layout.scale,
        parts={n: Part(p_parts.get(n), q_parts.get(n)) for n in {**q_parts, **p_parts}},
        values={n: s.value for n, s in q.sites.items() if n in p.sites and not s.is_observed},
        model=p.sites,
        guide=q.sites,
        layout=layout,
    )


def _p_parts(p: Recorder, layout: Layout, log_p: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """log p by site; those with a summed-out site among them in one, named after them all."""
    _check_sums(p, layout)
    inside, sums = sum_out(log_p, layout.model_scales, p.sites, layout.max_plate_nesting)
    alone = {n: term for n, term in log_p.items() if n not in inside}
    parts = folded(layout, alone, layout.model_scales)
    if sums:
        parts[joint_name(n for n in log_p if n in inside)] = reduce(add, map(layout.fold, sums))
    return parts


def _check_sums(p: Recorder, layout: Layout) -> None:
    for plate in layout.subsampled_inside:
        for name, site in p.sites.items():
            if is_summed_out(site) and plate not in {frame.name for frame in site.frames}:
                raise PlateError(
                    explain(
                        f"plate '{plate}'",
                        f"the summed-out site '{name}' inside it, on a minibatch",
                        "the site outside it: its sum needs all the data",
                        f"Pass the full data, or draw '{name}' in the guide, under the ELBO.",
                    )
                )


def _score_terms(p: Recorder, q: Recorder, log_q: Mapping[str, Tensor]) -> list[Tensor]:
    drawn = {n: q.sites[n] for n in log_q if q.sites[n].needs_score}
    imputed = [s for n, s in p.sites.items() if n not in q.sites and is_imputed(s)]
    return [
        log_q[n] if s.mask is None or is_imputed(s) else log_prob(replace(s, mask=None))
        for n, s in drawn.items()  # a mask hides the density, not the draw
    ] + [log_prob(s) for s in imputed if not s.has_rsample]


def _log_p(site: Site) -> Tensor:
    """A mask hides data, never one of the values that a sum runs over."""
    return log_prob(replace(site, mask=None) if is_summed_out(site) else site)


def folded(
    layout: Layout, terms: Mapping[str, Tensor], scales: Mapping[str, Scale]
) -> dict[str, Tensor]:
    """Terms by site summed over all plates but the batch, each times its factor."""
    return {n: layout.fold(scaled(term, scales[n])) for n, term in terms.items()}


def _total(terms: Sequence[Tensor], like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The sum of terms; zeros of the device of ``like`` where there are none."""
    total = reduce(add, terms) if terms else like.new_zeros(())
    return total if total.shape == shape else total.expand(shape)
