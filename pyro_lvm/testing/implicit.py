"""Contract of guides with sites that have draws alone, where a density would be asked."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.densities import log_prob
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.particles import inspect
from pyro_lvm.testing.contract import ROUNDING, require
from pyro_lvm.tracing import Program, Recorder, Site, record

__all__ = ["check_data_apart", "path_loss", "seeded_draws"]


def path_loss(model: Program, guide: Program, x: Tensor) -> Tensor:
    """A scalar that every parameter must move: through the draws where there is no density.

    Raises:
        ProgramError: sites or plates of the two programs do not match.
    """
    nesting = inspect(model, guide, (x,), {}).max_plate_nesting
    sites = record(guide, (x,), {}, Recorder(2, nesting)).sites.values()
    return torch.stack([_moved(site).sum() for site in sites]).sum()


def _moved(site: Site) -> Tensor:
    if is_implicit(site.fn):
        return site.value.square()
    return log_prob(site, site.value.detach())


def check_data_apart(guide: Program, x: Tensor) -> None:
    """At the same noise, another first datum leaves the draws of all others as they are.

    Raises:
        ContractError: it does not.
    """
    other = torch.cat([x[-1:], x[1:]])
    before, after = seeded_draws(guide, x)[1:], seeded_draws(guide, other)[1:]
    same = torch.allclose(before, after, rtol=ROUNDING, atol=ROUNDING)
    hint = "Keep data apart: no batch norm, no sum over the batch."
    require(same, "draws beside another datum", "the same", "others", hint)


def seeded_draws(guide: Program, x: Tensor) -> Tensor:
    """A draw of all sites, ``(B, features)``, always from one seed."""
    torch.manual_seed(0)
    sites = record(guide, (x,), {}, Recorder(None, 1)).sites.values()
    return torch.cat([site.value.reshape(len(x), -1) for site in sites], -1)
