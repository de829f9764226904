r"""Sleep phase: data dreamt by the model, and how well the guide explains them.

The model is run without its data, which draws latents and data together, and the guide is
called on these data as it is on real ones. Its mean log-density at the dreamt latents,
:math:`\mathbb E_{p(x, z)} \log q(z \mid x)`, is minus KL(p(z|x) || q(z|x)), up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_lvm.checks import check_programs, record_checked
from pyro_lvm.densities import guide_sites, log_prob
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = ["Arguments", "check_generative", "dream_log_q", "dreamt_arguments"]

Arguments = Callable[[Mapping[str, Tensor]], Any]

_NO_SLEEP = "Use ReweightedWakeSleep with insomnia=1, which has no sleep phase."


def dream_log_q(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    *,
    max_plate_nesting: int,
    arguments: Arguments | None = None,
) -> Tensor:
    """Log q of dreamt latents given dreamt data, one dream a datum: scalar nats, N/B-scaled.

    Args:
        model: the generative program; only drawn from, it gets no gradient.
        guide: the program to score.
        args: positional arguments of both; the shapes of the dreams are those of these data.
        kwargs: keyword arguments of both.
        max_plate_nesting: P.
        arguments: makes the guide's arguments, one or a tuple, from the dreamt data by site.
            By default dreams take the place of the argument that the site observes, whole or
            as a view.

    Raises:
        ProgramError: no argument is what a site observes, the model cannot be drawn from, or
            the guide cannot score what it did not draw.
    """
    with torch.no_grad():
        asleep = Recorder(None, max_plate_nesting)
        p = record_checked(poutine.uncondition(model), args, kwargs, asleep)
    data = {n: s for n, s in p.sites.items() if "was_observed" in s.infer}
    check_generative(data, "for a sleep phase", _NO_SLEEP)
    args, kwargs = dreamt_arguments(data, args, kwargs, arguments)
    latents = {n: s.value for n, s in p.sites.items() if n not in data}
    q = record_checked(guide, args, kwargs, Recorder(None, max_plate_nesting, latents, p.plates))
    check_programs({n: s for n, s in p.sites.items() if n in latents}, q.sites)
    _check_densities(q.sites)
    sites = guide_sites(q.sites, p.sites)
    layout = Layout.of(p.sites, sites, max_plate_nesting)
    terms = [layout.fold(log_prob(s) * layout.guide_scales[n]) for n, s in sites.items()]
    total: Tensor = (layout.scale * reduce(add, terms)).sum()
    return total


def dreamt_arguments(
    data: Mapping[str, Site], args: Any, kwargs: Any, arguments: Arguments | None = None
) -> tuple[Any, dict[str, Any]]:
    """The programs' arguments with dreams in place of data.

    Args:
        data: the dreamt sites, each of the shape of what it observed, ``infer["obs"]``.
        args: positional arguments, and
        kwargs: keyword arguments of the programs on real data.
        arguments: as in :func:`dream_log_q`.

    Raises:
        ProgramError: no argument is what a site observes.
    """
    return _in_place(args, kwargs, data) if arguments is None else _made(arguments, data)


def check_generative(sites: Mapping[str, Site], purpose: str, hint: str) -> None:
    """Refuse a model with sites that cannot be drawn.

    Args:
        sites: those of a run without data.
        purpose: what they are drawn for, as it stands in the error.
        hint: what to try instead.

    Raises:
        ProgramError: a site is a factor, or the observed part of one with ``obs_mask``.
    """
    for name, site in sites.items():
        if site.is_factor or name.endswith("_observed"):
            expected = f"a model whose data can be drawn, {purpose}"
            found = "a factor" if site.is_factor else "a part of a site with obs_mask"
            raise ProgramError(explain(f"site '{name}'", expected, found, hint))


def _check_densities(guide: Mapping[str, Site]) -> None:
    for name, site in guide.items():
        if site.is_auxiliary or site.is_delta:
            raise ProgramError(
                explain(
                    f"site '{name}'",
                    "a guide that scores latents it did not draw, for a sleep phase",
                    "an auxiliary site" if site.is_auxiliary else "a Delta",
                    "Use a guide with a density for each latent site, or ReweightedWakeSleep "
                    "with insomnia=1.",
                )
            )


def _made(arguments: Arguments, data: Mapping[str, Site]) -> tuple[Any, dict[str, Any]]:
    made = arguments({n: site.value for n, site in data.items()})
    return (made if isinstance(made, tuple) else (made,)), {}


def _in_place(args: Any, kwargs: Any, data: Mapping[str, Site]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments, with the dreams where their sites' data were."""
    named = {**dict(enumerate(args)), **kwargs}
    dreamt: dict[Any, Tensor] = {}
    for site in data.values():
        key = _holder(site, named)
        whole = dreamt.setdefault(key, named[key].clone())
        _view_like(site.infer["obs"], named[key], whole).copy_(site.value)
    named |= dreamt
    return [named.pop(i) for i in range(len(args))], named


def _holder(site: Site, named: Mapping[Any, Any]) -> Any:
    """The argument that the site observes, whole or in part."""
    seen = site.infer["obs"]
    for key, value in named.items():
        if isinstance(value, Tensor) and _shares(seen, value):
            return key
    raise ProgramError(
        explain(
            f"site '{site.name}'",
            "data that are an argument of the programs, or a view of one, to put dreams there",
            f"a tensor of shape {tuple(seen.shape)} made from them",
            "Pass arguments=, a function from the dreamt data by site to the guide's arguments.",
        )
    )


def _shares(view: Tensor, whole: Tensor) -> bool:
    """Whether ``view`` is ``whole``, dense in memory, or lies within it."""
    same = view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    dense = torch.empty_like(whole).stride() == whole.stride() and 0 not in view.stride()
    first = _offset(view, whole)
    steps = zip(view.shape, view.stride(), strict=True)
    last = first + sum((size - 1) * stride for size, stride in steps)
    return same and dense and view.dtype == whole.dtype and 0 <= first <= last < whole.numel()


def _view_like(view: Tensor, whole: Tensor, copy: Tensor) -> Tensor:
    """The part of ``copy`` that ``view`` is of ``whole``."""
    return copy.as_strided(view.shape, view.stride(), _offset(view, whole))


def _offset(view: Tensor, whole: Tensor) -> int:
    return int(view.storage_offset() - whole.storage_offset())
