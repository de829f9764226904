"""Objectives of Metropolis-Hastings proposals, with the chains that they are judged by."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, PlateError, explain
from pyro_lvm.frozen import Frozen
from pyro_lvm.latent_chains import LatentChains
from pyro_lvm.layout import Layout
from pyro_lvm.nn import check_choice, check_num_data, check_size
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles
from pyro_lvm.proposing import Drawn, chosen, latents, moved
from pyro_lvm.tracing import Program

__all__ = ["LOWER_BOUNDS", "AcceptanceObjective", "log_ratio"]

LOWER_BOUNDS = ("jensen", "symmetric")
"""Of log A and of A: E min(0, log xi), and E log xi."""


class AcceptanceObjective(Objective):
    """A lower bound on the rate at which Metropolis-Hastings accepts what a guide proposes.

    The model is the target and gets no gradient. States of the chains are kept from step to
    step, and move by the guide's own proposals.

    Args:
        num_particles: K chains of each datum, and proposals.
        lower_bound: "jensen" or "symmetric".
        num_data: N, rows of the data plate, if there is one.
        num_warmup: moves from the first draws to the chains' first states.
        max_plate_nesting: dims the plates may take.

    Raises:
        ProgramError: an argument out of range.
    """

    is_bound: ClassVar[bool] = False
    keeps_in_place: ClassVar[bool] = True
    is_linear: ClassVar[bool] = True
    """The symmetric bound is; the other one refuses minibatches here."""
    takes: ClassVar[tuple[str, ...]] = ("reparam",)

    def __init__(
        self,
        num_particles: int = 64,
        *,
        lower_bound: str = "jensen",
        num_data: int | None = None,
        num_warmup: int = 20,
        max_plate_nesting: int | None = None,
    ) -> None:
        check_choice("lower_bound", lower_bound, LOWER_BOUNDS)
        check_size("num_warmup + 1", num_warmup + 1)
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.lower_bound = lower_bound
        self.num_data = check_num_data(num_data)
        self.num_warmup = num_warmup
        self.chains = LatentChains(num_data)

    @abstractmethod
    def draws(
        self, model: Program, guide: Program, *, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        """Draws of a guide and their weights; ``how`` is for what makes them."""

    @abstractmethod
    def started(self, drawn: Drawn, guide: Program) -> dict[str, Tensor]:
        """States after the warm-up, ``(K, *plates, *event)`` by site of the guide."""

    @abstractmethod
    def paired(self, drawn: Drawn, guide: Program, states: dict[str, Tensor]) -> Particles:
        """The states, then as many proposals: ``(2 K, *batch)``."""

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        """From the log-weights ``(2 K, *batch)`` of states and proposals."""
        ratio = log_ratio(log_weights)
        return (ratio.clamp(max=0.0) if self.lower_bound == "jensen" else ratio).mean(0)

    def acceptance(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """An estimate of the acceptance rate itself, ``(*batch,)``, without gradient."""
        particles = self.particles(model, guide, *args, **kwargs)
        self.layout(particles)
        return log_ratio(particles.log_weights).clamp(max=0.0).exp().mean(0)

    @torch.no_grad()
    def move(
        self, model: Program, guide: Program, *args: Any, num_moves: int = 1, **kwargs: Any
    ) -> None:
        """Move the chains, given all data, between steps on minibatches that cannot move them."""
        args, index = self._split(args)
        for _ in range(num_moves):
            self._move(super()._draw(model, guide, args, kwargs, index=index), index)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        index: Tensor | None = None,
        **how: Any,
    ) -> Particles:
        """States of the chains, then proposals: ``(2 K, *batch)``."""
        drawn = partial(
            self.draws,
            Frozen(model)(model),
            args=args,
            kwargs=kwargs,
            max_plate_nesting=max_plate_nesting,
        )
        states = self._states(drawn, guide, index)
        particles = self.paired(partial(drawn, **how), guide, states)
        if self._is_estimate(particles):
            return particles
        self.layout(particles)
        if torch.is_grad_enabled():
            self._move(particles, index)
        return particles

    def before_step(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        """Start the chains of new rows."""
        if not self.chains.has(self._split(args)[1]).all():
            self.particles(model, guide, *args, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly, the chains too."""
        return super().state_dict() | {"chains": self.chains.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.chains.load_state_dict(state["chains"])

    def layout(self, particles: Particles) -> Layout:
        """The dims of the particles.

        Raises:
            PlateError: they are no chains of each datum.
        """
        layout = cast(Layout, particles.layout)  # of particles that were drawn
        if layout.subsampled_inside:
            where = f"plate '{layout.subsampled_inside[0]}'"
            hint = (
                "Pass the full data; or take lower_bound='symmetric', and pass them to "
                "objective.move(model, guide, ...), first and once an epoch."
            )
            raise PlateError(explain(where, "all data, to accept moves", "a minibatch", hint))
        if len(layout.batch) != (self.num_data is not None):
            where, found = "num_data", f"num_data={self.num_data} and plates {list(layout.names)}"
            hint = "Pass num_data, the rows in all, if there is a plate of independent data."
            raise PlateError(explain(where, "the size of the one data plate", found, hint))
        if layout.batch:
            self.chains.dim = 1 + layout.max_plate_nesting + int(layout.batch[0].dim)
        return layout

    def _draw(
        self, model: Program, guide: Program, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        args, index = self._split(args)
        return super()._draw(model, guide, args, kwargs, index=index, **how)

    def _split(self, args: Any) -> tuple[Any, Tensor | None]:
        """The programs' arguments, and the numbers of the rows if there are any."""
        if self.num_data is None:
            return args, None
        *own, last = args
        is_index = isinstance(last, Tensor) and last.dim() == 1 and not last.is_floating_point()
        if len(args) > 1 and is_index:
            return tuple(own), last
        if torch.is_grad_enabled():
            hint = (
                "Pass torch.arange(len(x)) last; for fit, let both programs take it and ignore it."
            )
            raise DataError(explain("index", "the number of each row", "none", hint))
        return args, None

    def _states(self, drawn: Drawn, guide: Program, index: Tensor | None) -> dict[str, Tensor]:
        """Where the chains of these rows are; new ones start at the guide, before a step."""
        if not torch.is_grad_enabled():
            if index is None and self.num_data is not None:
                return self.started(drawn, guide)
            if not self.chains.has(index).all():
                self.chains.start(index, self.started(drawn, guide))
        return self.chains.at(index)

    def _is_estimate(self, particles: Particles) -> bool:
        """Whether log-weights are unbiased estimates, of which only the mean is worth anything."""
        layout = cast(Layout, particles.layout)
        return bool(layout.subsampled_inside) and self.lower_bound == "symmetric"

    @torch.no_grad()
    def _move(self, particles: Particles, index: Tensor | None) -> None:
        """Each chain to its proposal, or not."""
        rows = moved(particles, self.layout(particles))
        self.chains.keep(index, chosen(latents(particles), rows))


def log_ratio(log_weights: Tensor) -> Tensor:  # (K, *batch)
    """Of proposals to states, from the log-weights ``(2 K, *batch)`` of states, then proposals."""
    states, proposals = log_weights.chunk(2)
    return proposals - states
