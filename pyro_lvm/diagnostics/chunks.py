"""Many draws of one model and guide, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from math import prod
from typing import Any, NamedTuple

import torch
from pyro.distributions import Unit
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyro_lvm.errors import MixingError, PyroLVMError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles, Ratio
from pyro_lvm.semi_implicit import SemiImplicitObjective
from pyro_lvm.shared_plates import OneMinibatch
from pyro_lvm.tracing import Recorder, Site, record

__all__ = [
    "Chunks",
    "Plated",
    "Replicate",
    "check_count",
    "is_factor",
]

Program = Callable[..., Any]

# Values of all sites in one chunk. A CPU is fastest while they stay near its caches, yet
# whatever does not depend on the particles (an encoder) runs again in each chunk; an
# accelerator wants more at a time, some 1 GB of float32 at the peak.
_MAX_ELEMENTS_CPU, _MAX_ELEMENTS = 2**22, 2**25


class Plated(NamedTuple):
    """Values of one site, ``(num_draws, *plates, *event)``, and the names of its plates."""

    plates: tuple[str, ...]
    values: Tensor


class Replicate(UnconditionMessenger):
    """Draws observed data anew; deterministic sites and factors, which are no data, stay."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic") and not is_factor(msg["fn"]):
            super()._pyro_sample(msg)


def is_factor(fn: Any) -> bool:
    """Whether ``pyro.factor`` made the distribution."""
    return isinstance(fn, Unit)


class Chunks:
    """Iterates over :class:`Particles` that add up to ``num_samples`` draws, no gradient.

    Args:
        objective: what makes the particles and checks the programs for its purpose.
        num_samples: draws in all.
        chunk_size: draws at a time; by default as many as bound the memory.
        ratio: stands in for the densities of sites that have none.
        mixing: takes the place of ``objective`` where there are mixing variables.

    Attributes:
        mixes: whether there are mixing variables.
        plates: the indices that every plate is opened with.
        probe: two particles, for what all chunks have in common.
    """

    def __init__(
        self,
        objective: type[Objective],
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        num_samples: int,
        chunk_size: int | None = None,
        ratio: Ratio | None = None,
        mixing: SemiImplicitObjective | None = None,
    ) -> None:
        self.num_samples = check_count("num_samples", num_samples)
        self.objective = objective
        self.ratio = ratio
        self.mixing, self.mixes = mixing, False
        self.model, self.guide = model, guide
        self.args, self.kwargs = args, kwargs
        self.plates = OneMinibatch()
        probe, self.probe = self._probed()
        wanted = _affordable(self.probe) if chunk_size is None else chunk_size
        self.chunk_size = check_count("chunk_size", wanted)
        self.max_plate_nesting = probe.max_plate_nesting or 0
        self.enumerates = probe.enumerates

    @property
    def uses_ratio(self) -> bool:
        """Whether the ratio stands for a density of these programs."""
        if self.ratio is None or self.mixes:
            return False
        return bool(self.ratio.covers(self.probe.model, self.probe.guide))

    def __iter__(self) -> Iterator[Particles]:
        for start in range(0, self.num_samples, self.chunk_size):
            count = min(self.chunk_size, self.num_samples - start)
            objective = self._objective(count, self.max_plate_nesting)
            objective.enumerates = self.enumerates
            yield self._particles(objective)

    def on(self, args: Any, kwargs: Any, num_samples: int) -> Chunks:
        """``num_samples`` draws at once by the same programs, plates included, of other data."""
        other = copy(self)
        other.args, other.kwargs = args, kwargs
        other.num_samples = other.chunk_size = num_samples
        return other

    def _probed(self) -> tuple[Objective, Particles]:
        probe = self._objective(2, None)  # 2, as some checks apply to several particles only
        try:
            return probe, self._particles(probe)
        except MixingError:
            if self.mixing is None:
                raise
            self.mixes = True
            mixed = self._objective(2, None)
            return mixed, self._particles(mixed)

    def _objective(self, num_particles: int, max_plate_nesting: int | None) -> Objective:
        if not (self.mixes and self.mixing):
            made = self.objective(num_particles, max_plate_nesting=max_plate_nesting)
            made.ratio = self.ratio
            return made
        mixed = copy(self.mixing)
        mixed.num_particles, mixed.max_plate_nesting = num_particles, max_plate_nesting
        return mixed

    def _particles(self, objective: Objective) -> Particles:
        with self.plates:
            return objective.particles(self.model, self.guide, *self.args, **self.kwargs)

    def simulate(self, num_draws: int, given: Mapping[str, Tensor]) -> dict[str, Site]:
        """Run the model with its observed sites drawn, not observed, and latents ``given``.

        Sites that were observed carry ``infer["was_observed"]``.
        """
        recorder = Recorder(num_draws, self.max_plate_nesting, given)
        with torch.no_grad(), self.plates:
            return record(Replicate()(self.model), self.args, self.kwargs, recorder).sites

    def rerun(self, num_draws: int, given: Mapping[str, Tensor]) -> dict[str, Site]:
        """The model's sites with all its latents ``given``, its data as they are."""
        recorder = Recorder(num_draws, self.max_plate_nesting, given)
        with torch.no_grad(), self.plates:
            return record(self.model, self.args, self.kwargs, recorder).sites

    def in_own_plates(
        self, site: Site, value: Tensor, num_draws: int, event_dim: int | None = None
    ) -> Plated:
        """Give ``value`` the plate dims that ``site`` is in, and no others.

        Args:
            value: broadcastable to ``(num_draws, *plates, *event)`` with all plate dims.
            event_dim: event dims of ``value``; the site's own if left out.
        """
        event_dim = site.fn.event_dim if event_dim is None else event_dim
        frames = sorted((f for f in site.frames if f.dim is not None), key=lambda f: int(f.dim))
        sizes = [1] * self.max_plate_nesting
        for frame in frames:
            sizes[frame.dim] = frame.size
        event = value.shape[value.dim() - event_dim :]
        full = value.expand(num_draws, *sizes, *event)
        own = full.reshape(num_draws, *[frame.size for frame in frames], *event)
        return Plated(tuple(frame.name for frame in frames), own)


def _affordable(particles: Particles) -> int:
    """How many particles at a time keep within the bound on elements, at least one."""
    sites = [*particles.model.values(), *particles.guide.values()]
    total: int = sum(prod(site.fn.batch_shape + site.fn.event_shape) for site in sites)
    on_cpu = particles.log_p.device.type == "cpu"
    bound = _MAX_ELEMENTS_CPU if on_cpu else _MAX_ELEMENTS
    return max(1, bound * len(particles.log_p) // max(1, total))


def check_count(name: str, count: int) -> int:
    """Return ``count`` if it is a whole number of at least one.

    Raises:
        PyroLVMError: it is not.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise PyroLVMError(explain(name, "an integer >= 1", repr(count), f"Pass {name}=1000."))
    return count
