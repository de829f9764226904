"""Two programs that meet: the guide on data, the model on its draws, the model in a dream.

No density is asked for here. What critics compare are draws: of the guide, of the model's
prior, of data, of the data that the model dreams, and of those that it makes of the guide's
latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pyro import poutine
from torch import Tensor

from pyro_lvm.checks import record_checked
from pyro_lvm.densities import guide_sites
from pyro_lvm.errors import PlateError, ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.nn import joined
from pyro_lvm.particles import check_runs
from pyro_lvm.tracing import Draw, Program, Recorder, Site

__all__ = ["Encounter", "meet"]

Sites = Mapping[str, Site]


class Encounter(NamedTuple):
    """Runs of K particles on data, and one dream a datum; vectors in the properties below.

    Attributes:
        guide: on the data.
        model: on the guide's draws.
        dream: the model's, with its data drawn too.
        held: the same without the draws' gradient, where it was asked for; else ``model``.
        layout: the dims of all this.
        data: name of the site that critics see.
    """

    guide: Recorder
    model: Recorder
    dream: Recorder
    held: Recorder
    layout: Layout
    data: str

    @property
    def latents(self) -> list[str]:
        """The latent sites."""
        return [n for n, s in self.guide.sites.items() if not s.is_observed and n in self.others]

    @property
    def others(self) -> Sites:
        """The model's sites, but for the data that critics see."""
        return {n: s for n, s in self.model.sites.items() if n != self.data}

    @property
    def z(self) -> Tensor:  # (K, *plates, features)
        """The guide's draws."""
        return joined([_moved(self.guide.sites[name]) for name in self.latents])

    @property
    def x(self) -> Tensor:  # (*plates, features)
        """The data."""
        return _flat(self.model.sites[self.data])

    @property
    def dreamt_z(self) -> Tensor:  # (*plates, features)
        """Draws of the prior."""
        return joined([_moved(self.dream.sites[name]) for name in self.latents])

    @property
    def dreamt_x(self) -> Tensor:  # (*plates, features)
        """Draws of the data given them."""
        return _moved(self.dream.sites[self.data])

    @property
    def copied_x(self) -> Tensor:  # (K, *plates, features)
        """Fresh draws of the data given the guide's latents."""
        site = self.model.sites[self.data]
        _check_moved(site)
        return _flat(site, site.fn.rsample())

    def mean(self, run: Recorder) -> Tensor:  # (K?, *plates, features)
        """The mean of the data given the latents of one of the model's runs."""
        site = run.sites[self.data]
        return _flat(site, site.fn.mean)


def meet(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    *,
    num_particles: int,
    max_plate_nesting: int,
    data: str | None,
    hold: bool = False,
) -> Encounter:
    """Run both programs on the data, and the model without them.

    Args:
        model: the generative program.
        guide: the program that draws the latent sites.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_particles: K.
        max_plate_nesting: P.
        data: the observed site that critics see; by default the only one.
        hold: run the model also on the guide's draws without their gradient.

    Raises:
        ProgramError: several observed sites and no ``data``; sites that cannot be drawn.
        PlateError: a site that is not in the plates of all.
    """
    record = partial(_recorded, args, kwargs, max_plate_nesting)
    q = record(num_particles, guide)
    drawn = {n: s.value for n, s in q.sites.items() if not s.is_observed}
    p = record(num_particles, model, drawn, q.plates)
    check_runs(p, q)
    name = _data_site(p.sites, data)
    dream = record(None, poutine.uncondition(model), {}, q.plates)
    fixed = {n: z.detach() for n, z in drawn.items()}
    held = record(num_particles, model, fixed, q.plates) if hold else p
    layout = Layout.of(p.sites, guide_sites(q.sites, p.sites), max_plate_nesting)
    met = Encounter(q, p, dream, held, layout, name)
    _check_drawn(met)
    _check_plates(met)
    return met


def _recorded(
    args: Any,
    kwargs: Any,
    nesting: int,
    num_particles: int | None,
    program: Program,
    given: Mapping[str, Tensor] | None = None,
    plates: Mapping[str, Draw] | None = None,
) -> Recorder:
    return record_checked(program, args, kwargs, Recorder(num_particles, nesting, given, plates))


def _moved(site: Site) -> Tensor:
    _check_moved(site)
    return _flat(site)


def _flat(site: Site, value: Tensor | None = None) -> Tensor:  # (K?, *plates, features)
    value = site.value if value is None else value
    return value.reshape(*value.shape[: value.dim() - site.fn.event_dim], -1)


def _data_site(model: Sites, data: str | None) -> str:
    observed = [n for n, s in model.items() if s.is_observed and not s.is_factor]
    if data is None and len(observed) == 1:
        return observed[0]
    if data not in observed:
        expected = f"the name of one of the observed sites {observed}"
        hint = "Name the site that critics see; any other is scored by its density."
        raise ProgramError(explain("data", expected, repr(data), hint))
    return data


def _check_drawn(met: Encounter) -> None:
    """Critics see draws of all latents, and of data that are whole."""
    for name, site in met.model.sites.items():
        if not site.is_observed and name not in met.guide.sites:
            hint = f"Draw '{name}' in the guide."
            raise _wrong(name, "a latent that the guide draws", "one of the model alone", hint)
    for name, site in met.guide.sites.items():
        if site.is_factor:
            hint = "Put it into the model, where it is added to the objective."
            raise _wrong(name, "draws of the guide", "a factor", hint)
    if met.model.sites[met.data].mask is not None or met.data.endswith("_observed"):
        hint = "Complete the data first, or use a bound such as IWAE."
        raise _wrong(met.data, "whole data, for a critic to see", "a mask", hint)


def _check_plates(met: Encounter) -> None:
    plates = set(met.layout.names)
    sites: Iterable[Site] = [met.model.sites[name] for name in (*met.latents, met.data)]
    for site in sites:
        found = {frame.name for frame in site.frames if frame.dim is not None}
        if found != plates:
            where, expected = f"site '{site.name}'", f"a site in the plates {sorted(plates)} alone"
            hint = "Make inner plates event dims by .to_event, and global latents parameters."
            raise PlateError(explain(where, expected, f"one in {sorted(found)}", hint))


def _check_moved(site: Site) -> None:
    if not site.has_rsample:
        found = f"{type(site.fn).__name__}, which has no rsample"
        hint = "Use a Gaussian likelihood or a relaxed distribution, or AVB, which scores the data."
        raise _wrong(site.name, "reparameterised draws, which a critic can move", found, hint)


def _wrong(name: str, expected: str, found: str, hint: str) -> ProgramError:
    return ProgramError(explain(f"site '{name}'", expected, found, hint))
