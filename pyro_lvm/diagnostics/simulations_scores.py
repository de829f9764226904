"""Functions of all latents of a simulation and its data, as densities: what ranks alone miss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add
from typing import cast

import torch
from torch import Tensor

from pyro_lvm.densities import guide_sites, log_prob
from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.tracing import Recorder, Site, record

__all__ = ["GUIDE", "JOINT", "LIKELIHOOD", "Quantity", "scores"]

LIKELIHOOD = "log p(x | z)"
JOINT = "log p(x, z)"
GUIDE = "log q(z | x)"

Sites = Mapping[str, Site]
Values = Mapping[str, Tensor]
Quantity = Callable[[Values, Values], Tensor]


def scores(
    programs: Chunks, values: Values, data: Sites, quantities: Mapping[str, Quantity]
) -> dict[str, Tensor]:
    """Functions of each simulation by name, ``(K, simulations)``, densities in nats.

    Args:
        programs: on the simulated data.
        values: K values of all latents that guide and model share, ``(K, *plates, *event)``.
        data: the simulated data by site.
        quantities: functions ``(K, *batch)`` of latents ``(K, *plates, *event)``, each in its
            own plates, and of data ``(*plates, *event)``, by site.

    Returns:
        The likelihood always; the joint density and the guide's where the model's latents, and
        the guide's, have one.
    """
    layout = cast(Layout, programs.probe.layout)
    count = len(next(iter(values.values())))
    model = programs.rerun(count, values)
    found = {LIKELIHOOD: _total(layout, (model[name] for name in data))}
    if _has_density(model.values()):
        found[JOINT] = _total(layout, model.values())
    guide = _guide(programs, values)
    if guide and _has_density(guide.values()):
        found[GUIDE] = _total(layout, guide_sites(guide, model).values())
    shape = (count, *layout.shape)
    latents = {n: programs.in_own_plates(model[n], v, count).values for n, v in values.items()}
    simulated = {name: site.value for name, site in data.items()}
    for name, quantity in quantities.items():
        found[name] = _checked(name, quantity(latents, simulated), shape)
    return {name: value.expand(shape).reshape(count, -1) for name, value in found.items()}


def _checked(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.shape != shape:
        expected, found = f"a tensor of shape {shape}, (K, *batch)", f"{tuple(value.shape)}"
        hint = "Sum over event dims and over plates inside the data's."
        raise ProgramError(explain(f"quantity '{name}'", expected, found, hint))
    return value


def _guide(programs: Chunks, values: Values) -> Sites:
    recorder = Recorder(len(next(iter(values.values()))), programs.max_plate_nesting, values)
    with torch.no_grad(), programs.plates:
        return record(programs.guide, programs.args, programs.kwargs, recorder).sites


def _has_density(sites: Iterable[Site]) -> bool:
    return not any(site.is_auxiliary or site.is_delta or is_implicit(site.fn) for site in sites)


def _total(layout: Layout, sites: Iterable[Site]) -> Tensor:  # (K or 1, *batch)
    return reduce(add, (layout.fold(log_prob(site)) for site in sites))
