"""What methods of imputation have in common: the data they are asked for, what they give back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import is_factor
from pyro_lvm.errors import ProgramError, PyroLVMError, explain
from pyro_lvm.masking import fill_masked
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site

__all__ = ["Filled", "as_floating", "data_site", "observed_entries", "per_chain"]


class Filled(NamedTuple):
    """What a method of imputation makes.

    Attributes:
        values: ``(M, *data)``, all entries.
        log_weights: ``(K, *batch)`` of the particles that they were chosen from.
        acceptance: ``(*batch,)``.
        num_chains: of one length each.
    """

    values: Tensor
    log_weights: Tensor | None = None
    acceptance: Tensor | None = None
    num_chains: int = 1


def data_site(particles: Particles, name: str) -> Site:
    """The observed site of that name.

    Raises:
        ProgramError: there is none.
    """
    data = [n for n, s in particles.model.items() if s.is_observed and not is_factor(s.fn)]
    if name not in data:
        hint = "Name the observed site to be filled in by site=."
        expected = f"an observed site, one of {data}"
        raise ProgramError(explain("site", expected, repr(name), hint))
    return particles.model[name]


def observed_entries(site: Site) -> Tensor:
    """Where the site is not masked: what remains NaN when masked entries are filled."""
    value = as_floating(site.value)
    return fill_masked(site.fn, torch.full_like(value, torch.nan), site.mask).isnan()


def as_floating(value: Tensor) -> Tensor:
    """Numbers that can be NaN."""
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def per_chain(num_samples: int, num_chains: int) -> int:
    """Draws of each chain, for ``num_samples`` in all.

    Raises:
        PyroLVMError: they cannot be of one length.
    """
    length, rest = divmod(num_samples, num_chains)
    if rest:
        hint = "Pass another number, or for method= an object with num_chains=1."
        expected = f"a multiple of num_chains={num_chains}"
        raise PyroLVMError(explain("num_samples", expected, str(num_samples), hint))
    return length
