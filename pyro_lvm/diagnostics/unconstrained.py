"""Log p(x, z) of a model as a function of vectors without constraints, for gradient-based moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from math import prod
from operator import add
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_lvm.checks import check_programs, check_site, is_imputed, nonfinite_data, record_checked
from pyro_lvm.densities import log_prob
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.enumeration import Enumerator, is_enumerated, is_summed_out, sum_out
from pyro_lvm.errors import DensityError, PlateError, ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.shared_plates import OneMinibatch
from pyro_lvm.tracing import Recorder, Site

__all__ = ["Densities", "UnconstrainedModel"]

Program = Callable[..., Any]
Sites = Mapping[str, Site]


class Densities(NamedTuple):
    """Log-densities with respect to the unconstrained vectors, ``(M, *batch)`` nats."""

    log_joint: Tensor
    log_prior: Tensor


class UnconstrainedModel:
    """A model with all continuous latents of a datum in one vector, ``(M, *batch, D)``.

    Sites with a constrained support are moved to the whole space by ``biject_to``, whose
    Jacobian is in the densities; a support may depend on other latents. Discrete sites marked
    ``infer={"enumerate": "parallel"}`` are summed out. The batch is the plates that every site
    is in; a latent outside them joins all data in one vector.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        args: its positional arguments.
        kwargs: its keyword arguments.
        guide: the program whose draws :meth:`guide_draws` is to take, if any.

    Attributes:
        layout: plates and scales.
        counted: ``(1, *batch, D)``, False for entries of latent sites under a mask.
        elements: values of all sites for one draw.

    Raises:
        ProgramError: a discrete latent that is not summed out, or no latent.
        PlateError: a latent outside a subsampled plate.
    """

    def __init__(self, model: Program, args: Any, kwargs: Any, guide: Program | None = None):
        self.model, self.guide = model, guide
        self.args, self.kwargs = args, kwargs
        self._plates = OneMinibatch()
        programs = [model] if guide is None else [model, guide]
        self._nesting = max(_nesting(self._run(p, Recorder(None, _ANY))) for p in programs)
        sites = self._draw(1)
        for site in sites.values():
            if site.is_observed and (error := nonfinite_data(site)):
                raise error
        self._latents = _latents(sites)
        self._event_dims = {name: sites[name].fn.event_dim for name in self._latents}
        self.layout = Layout.of(_scored(sites), {}, self._nesting)
        _check_subsampling(self.layout)
        free = _free(sites, self._latents)
        self._shapes = {name: self._rest(value) for name, value in free.items()}
        self.counted = self._pack({n: self._mask(sites[n], value) for n, value in free.items()})
        self.elements = sum(prod(s.fn.batch_shape + s.fn.event_shape) for s in sites.values())

    @torch.no_grad()
    def prior_draws(self, num_draws: int) -> Tensor:  # (num_draws, *batch, D)
        """Vectors drawn from the model, without regard to the data."""
        return self._pack(_free(self._draw(num_draws), self._latents))

    @torch.no_grad()
    def guide_draws(self, num_draws: int) -> Tensor:  # (num_draws, *batch, D)
        """Vectors drawn from the guide, which needs no density."""
        q = self._run(self.guide, Recorder(num_draws, self._nesting))
        given = {n: s.value for n, s in q.items() if not s.is_observed}
        p = self._draw(num_draws, given)
        check_programs(p, q)
        return self._pack(_free(p, self._latents))

    @torch.no_grad()
    def vector(self, latents: Mapping[str, Tensor]) -> Tensor:  # (1, *batch, D)
        """The vector of these values by latent site, ``(*plates, *event)`` each.

        Raises:
            ProgramError: a latent site without a value.
        """
        if missing := sorted(set(self._latents) - latents.keys()):
            hint = "Pass the values that made the data, by site."
            raise ProgramError(
                explain("latents", f"values of {self._latents}", f"none of {missing}", hint)
            )
        given = {n: self._with_all_dims(n, latents[n]) for n in self._latents}
        return self._pack(_free(self._draw(1, given), self._latents))

    def _with_all_dims(self, name: str, value: Tensor) -> Tensor:  # (1, *plates, *event)
        missing = 1 + self._nesting + self._event_dims[name] - value.dim()
        return value.reshape((1,) * missing + value.shape)

    @torch.no_grad()
    def values(self, vectors: Tensor) -> dict[str, Tensor]:  # (M, *plates, *event) each
        """What the vectors ``(M, *batch, D)`` mean, by latent site."""
        sites = self._at(_Constrain(self._unpack(vectors)), len(vectors))
        return {name: sites[name].value for name in self._latents}

    def densities(self, vectors: Tensor) -> Densities:
        """Log p(x, z) and log p(z) at ``(M, *batch, D)`` vectors, differentiable in these."""
        constrain = _Constrain(self._unpack(vectors))
        sites = _scored(self._at(constrain, len(vectors)))
        terms = {n: _log_prob(site) for n, site in sites.items()}
        drawn = {n: term for n, term in terms.items() if not sites[n].is_observed}
        jacobian = reduce(add, map(self.layout.fold, constrain.log_det.values()))
        log_joint = self._total(terms, self.layout.model_scales, sites)
        log_prior = self._total(drawn, dict.fromkeys(drawn, 1.0), sites)  # as it was drawn
        return Densities(log_joint + jacobian, log_prior + jacobian)

    def _at(self, constrain: _Constrain, num_draws: int) -> Sites:
        program = Enumerator(self._nesting, {})(constrain(self.model))
        return self._run(program, Recorder(num_draws, self._nesting))

    def _total(
        self, terms: Mapping[str, Tensor], scales: Mapping[str, Any], sites: Sites
    ) -> Tensor:
        inside, sums = sum_out(terms, scales, sites, self._nesting)
        alone = [scales[n] * term for n, term in terms.items() if n not in inside]
        return reduce(add, map(self.layout.fold, [*alone, *sums]))

    def _run(self, program: Any, recorder: Recorder) -> Sites:
        with self._plates:
            return record_checked(program, self.args, self.kwargs, recorder).sites

    @torch.no_grad()
    def _draw(self, num_draws: int, given: Mapping[str, Tensor] | None = None) -> Sites:
        recorder = Recorder(num_draws, self._nesting, given)
        sites = self._run(self.model, recorder)
        for site in sites.values():
            check_site(site, recorder.sizes)
        return sites

    def _batch_first(self, value: Tensor) -> Tensor:  # (M, *plates, *event) -> (M, *batch, ...)
        return value.movedim(self._dims, self._first)

    def _rest(self, value: Tensor) -> torch.Size:
        return self._batch_first(value).shape[1 + len(self.layout.batch) :]

    def _pack(self, values: Mapping[str, Tensor]) -> Tensor:
        moved = map(self._batch_first, values.values())
        kept = 1 + len(self.layout.batch)
        return torch.cat([value.reshape(*value.shape[:kept], -1) for value in moved], -1)

    def _unpack(self, vectors: Tensor) -> dict[str, Tensor]:
        parts = vectors.split([prod(shape) for shape in self._shapes.values()], -1)
        return {
            name: part.reshape(part.shape[:-1] + shape).movedim(self._first, self._dims)
            for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(1 + self._nesting + frame.dim for frame in self.layout.batch)

    @property
    def _first(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + len(self.layout.batch)))

    def _mask(self, site: Site, free: Tensor) -> Tensor:
        mask = torch.as_tensor(True if site.mask is None else site.mask, device=free.device)
        event_dim = free.dim() - 1 - self._nesting
        return mask.reshape(mask.shape + (1,) * event_dim).expand(free.shape)


class _Constrain(Messenger):
    """Gives each latent site the image of its ``free`` value; keeps the log-Jacobians."""

    def __init__(self, free: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.free = free
        self.log_det: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.free:
            to_support = biject_to(msg["fn"].support)
            msg["value"] = to_support(self.free[name])
            self.log_det[name] = to_support.log_abs_det_jacobian(self.free[name], msg["value"])


_ANY = 1_000_000


def _nesting(sites: Sites) -> int:
    for site in sites.values():
        check_site(site, {})
    dims = [f.dim for site in sites.values() for f in site.frames if f.dim is not None]
    return -min(dims, default=0)


def _scored(sites: Sites) -> dict[str, Site]:
    """All but what ``obs_mask`` imputes, which integrates to one."""
    return {n: s for n, s in sites.items() if not is_imputed(s)}


def _log_prob(site: Site) -> Tensor:
    return log_prob(replace(site, mask=None) if is_summed_out(site) else site)


def _free(sites: Sites, names: list[str]) -> dict[str, Tensor]:
    return {n: biject_to(sites[n].fn.support).inv(sites[n].value) for n in names}


def _latents(sites: Sites) -> list[str]:
    drawn = [s for s in _scored(sites).values() if not (s.is_observed or s.is_delta)]
    latents = [site for site in drawn if not is_enumerated(site)]
    for site in latents:
        if is_implicit(site.fn):
            raise _without_density(site)
        if site.fn.support.is_discrete:
            raise _discrete(site)
    if not latents:
        hint = "Use method='iwae', which needs none."
        raise ProgramError(explain("model", "a continuous latent site to move", "none", hint))
    return [site.name for site in latents]


def _without_density(site: Site) -> DensityError:
    return DensityError(
        explain(
            f"site '{site.name}'",
            "a prior with a density, for chains to move in",
            "Implicit: it can be drawn from, and has no density",
            "Pass method='iwae' and objective=, the adversarial one that it was trained by, for "
            "an estimate that is no bound.",
        )
    )


def _discrete(site: Site) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{site.name}'",
            "continuous latents, which Hamiltonian dynamics can move",
            f"a discrete one, {site.fn}",
            "Sum it out: pyro.sample(..., infer={'enumerate': 'parallel'}) in the model; or use "
            "method='iwae'.",
        )
    )


def _check_subsampling(layout: Layout) -> None:
    if layout.subsampled_inside:
        raise PlateError(
            explain(
                f"plate '{layout.subsampled_inside[0]}'",
                "every site inside it, on a minibatch",
                "a latent outside it, whose evidence needs all the data",
                "Pass the full data, or move the global variable to a parameter.",
            )
        )
