"""Explicit log-densities of recorded sites: whole, or by route to the parameters."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from pyro_lvm.checks import is_imputed, nonfinite_data, record_checked
from pyro_lvm.distributions.implicit import no_density
from pyro_lvm.errors import DensityError, ProgramError, PyroLVMError, explain
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = ["Routes", "check_repeatable", "guide_sites", "log_prob", "log_q_by_route"]

Sites = Mapping[str, Site]


class Routes(NamedTuple):
    """log q of one site twice, ``(K, *plates)``: each has one route to the parameters.

    ``path`` goes through the samples only, ``direct`` through the distribution only.
    """

    path: Tensor
    direct: Tensor | None


def log_prob(
    site: Site, value: Tensor | None = None, held: bool = False
) -> Tensor:  # (K?, *plates)
    """Log-probability of a site at its own value or at another, nats, masked, unscaled.

    ``held`` holds the distribution fixed: the derivative goes through the value alone.

    Raises:
        DataError: the site is observed and its data are NaN or infinite.
        DensityError: the site can only be drawn from.
        PyroLVMError: the value is outside the distribution's support.
    """
    value = site.value if value is None else value
    try:
        return masked_log_prob(site.fn, value, site.mask, site.is_observed, held)
    except DensityError as error:
        raise no_density(f"site '{site.name}'") from error
    except PyroLVMError:
        raise
    except ValueError as error:
        raise (nonfinite_data(site) or _outside_support(site, error)) from error


def guide_sites(guide: Sites, model: Sites) -> dict[str, Site]:
    """The sites that make up log q.

    Data that the guide observes as the model does (guides that run the model, as
    ``AutoNormalMessenger``) are no draws of it; one that imputes under ``obs_mask`` is not
    charged for what was observed.
    """
    drawn = {n: s for n, s in guide.items() if not (s.is_observed and n in model)}
    return {
        n: replace(s, mask=model[n].mask) if n in model and is_imputed(model[n]) else s
        for n, s in drawn.items()
    }


def log_q_by_route(
    guide: Program,
    args: Any,
    kwargs: Any,
    q: Recorder,
    model: Sites,
    passed: Mapping[str, Tensor],
    without: Container[str] = (),
    direct: bool = False,
) -> dict[str, Routes]:
    """Per site, log q at the values ``passed``, its path and its direct derivative apart.

    Distributions that saw no other draw are scored again as they are, held fixed; else the
    guide is replayed once on the values and on the same ones detached, side by side in the
    particle dim: the second score has exactly the direct derivative, and taken away from the
    first it leaves the path's. Sites in ``without`` are not scored; the direct part may be
    left out unless it is asked for.
    """
    sites = {n: s for n, s in guide_sites(q.sites, model).items() if n not in without}
    if any(site.is_delta for site in sites.values()):
        _check_deltas(guide, args, kwargs, q, passed)
    if not any(site.is_downstream or site.is_observed for site in sites.values()):
        return {n: _held_routes(s, passed[n], direct) for n, s in sites.items()}
    check_repeatable(guide)
    num_particles = q.num_particles or 1
    doubled = {
        n: torch.cat([z, z.detach()])
        for n, z in passed.items()
        if not q.sites[n].is_delta  # a function of the others: recomputed, not replayed
    }
    again = Recorder(2 * num_particles, q.max_plate_nesting, doubled, q.plates)
    record_checked(guide, args, kwargs, again)
    replayed = {n: s for n, s in guide_sites(again.sites, model).items() if n not in without}
    scores = {n: _doubled(log_prob(s), again) for n, s in replayed.items()}
    return {
        n: _routes(replayed[n], score[:num_particles], score[num_particles:])
        for n, score in scores.items()
    }


def _check_deltas(
    guide: Program, args: Any, kwargs: Any, q: Recorder, passed: Mapping[str, Tensor]
) -> None:
    """A Delta must be a function of draws alone, or log q at fixed values is unknown."""
    fixed = {n: z.detach() for n, z in passed.items() if not q.sites[n].is_delta}
    again = Recorder(q.num_particles, q.max_plate_nesting, fixed, q.plates)
    for name, site in record_checked(guide, args, kwargs, again).sites.items():
        if site.is_delta and site.value.requires_grad:
            raise ProgramError(
                explain(
                    f"site '{name}'",
                    "a Delta of the guide's draws alone, under a path gradient",
                    "one that parameters move: its density at fixed values is not known",
                    "Use gradient='reparam'.",
                )
            )


def check_repeatable(guide: Program) -> None:
    """Dropout would draw a new mask in the second run, of which the draws know nothing."""
    for name, part in guide.named_modules() if isinstance(guide, nn.Module) else ():
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise ProgramError(
                explain(
                    f"module '{name}' of the guide",
                    "a guide that gives one density twice",
                    f"{part} in training mode beside a latent that depends on another",
                    "Take the dropout out, or use gradient='reparam' of an objective that runs the "
                    "guide once.",
                )
            )


def _doubled(score: Tensor, recorder: Recorder) -> Tensor:
    shape = (1,) * (recorder.max_plate_nesting + 1 - score.dim()) + score.shape
    return score.reshape(shape).expand(recorder.num_particles or 1, *shape[1:])


def _held_routes(site: Site, value: Tensor, direct: bool) -> Routes:
    path = log_prob(site, value, held=True)
    return Routes(path, log_prob(site, value.detach()) if direct else None)


def _routes(site: Site, total: Tensor, direct: Tensor) -> Routes:
    """A factor is no density, whose direct derivative has mean zero: it keeps all of its own."""
    if site.is_factor:
        return Routes(total, None)
    return Routes(total - (direct - direct.detach()), direct)


def _outside_support(site: Site, error: ValueError) -> PyroLVMError:
    return PyroLVMError(
        explain(
            f"site '{site.name}'",
            f"a value that {site.fn} can score",
            str(error).split("\n")[0],
            "Check the data's coding and shape against the site's distribution.",
        )
    )
