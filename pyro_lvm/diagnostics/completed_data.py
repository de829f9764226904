"""Data whose missing entries are filled, for programs that are then run on complete ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.drawn_entries import reads_the_mask
from pyro_lvm.diagnostics.filled import data_site, observed_entries
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site

__all__ = ["CompletedData"]


@dataclass(frozen=True)
class CompletedData:
    """Data with NaN that are completed, and which arguments of the programs they are.

    Attributes:
        chunks: of the programs on the data as they came.
        site: the observed site that has them.
        observed: bool, of their shape.
        places: positions of the arguments that are the data, and
        names: keywords of others.
    """

    chunks: Chunks
    site: Site
    observed: Tensor
    places: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, chunks: Chunks, name: str) -> CompletedData:
        """The data of the observed site ``name``.

        Raises:
            ProgramError: they are no argument of the programs, masked in another way than by NaN,
                or the model looks at which entries are missing.
        """
        probe = with_discrete_draws(chunks, chunks.probe)
        site = data_site(probe, name)
        if reads_the_mask(probe, site):
            raise _of_its_mask(name)
        observed = chunks.in_own_plates(site, observed_entries(site), 2).values[0]
        places = tuple(i for i, arg in enumerate(chunks.args) if _same(arg, site.value))
        names = tuple(n for n, arg in chunks.kwargs.items() if _same(arg, site.value))
        if not (places or names) or not torch.equal(observed, ~site.value.isnan()):
            raise _not_by_nan(name)
        return cls(chunks, site, observed, places, names)

    def arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Of both programs, with ``x`` for the data."""
        args = tuple(x if i in self.places else a for i, a in enumerate(self.chunks.args))
        return args, {n: x if n in self.names else a for n, a in self.chunks.kwargs.items()}

    def check_all_scored(self, particles: Particles) -> None:
        """Raise where the model leaves entries out although they are no longer NaN."""
        if not observed_entries(particles.model[self.site.name]).all():
            raise _not_by_nan(self.site.name)

    def completed(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The data with their missing entries drawn given the latents ``(1, *plates, ...)``."""
        drawn = self.chunks.simulate(1, latents)[self.site.name]
        values = self.chunks.in_own_plates(drawn, drawn.value, 1).values[0]
        return torch.where(self.observed, self.site.value, values.to(self.site.value))


def _same(argument: Any, value: Tensor) -> bool:
    if not isinstance(argument, Tensor) or argument.shape != value.shape:
        return False
    return torch.equal(argument.isnan(), value.isnan()) and torch.equal(
        argument.nan_to_num().to(value), value.nan_to_num()
    )


def _of_its_mask(name: str) -> ProgramError:
    expected = "a model that is the same for completed data"
    found = "one that reads which entries are missing"
    hint = "Use method='sir'."
    return ProgramError(explain(f"site '{name}' under method='mh'", expected, found, hint))


def _not_by_nan(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}' under method='mh'",
            "an argument of the model, NaN where and only where entries are missing",
            "data that are masked in another way",
            "Pass NaN to Incomplete(model), or use method='sir'.",
        )
    )
