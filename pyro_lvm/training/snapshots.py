"""Everything a run needs to go on exactly, gathered, saved and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pyro_lvm.objective import Objective
from pyro_lvm.training.checkpoint import CheckpointFolder, read
from pyro_lvm.training.rng import random_state, set_random_state
from pyro_lvm.training.state import TrainingState
from pyro_lvm.training.step import Stepper

__all__ = ["Snapshots"]


@dataclass
class Snapshots:
    """Saves a run to a folder, if there is one, and remembers the best parameters.

    Every process takes part in a snapshot; the first one writes it.

    Attributes:
        stepper: programs, optimiser, schedule.
        objective: with whatever state it has.
        state: the counters.
        config: settings to keep with them.
        folder: the run's checkpoints, or None.
        best: parameters with the best held-out bound so far.
        saved_at: the step of the latest snapshot.
    """

    stepper: Stepper
    objective: Objective
    state: TrainingState
    config: dict[str, Any]
    folder: CheckpointFolder | None
    best: dict[str, Any] | None = None
    saved_at: int | None = None

    def save(self) -> None:
        """Save this step, unless that has been done."""
        if self.folder is None or self.saved_at == self.state.step:
            return
        content = self._content()
        self.saved_at = self.state.step
        if self._is_first:
            self.folder.save(self.state.step, content)

    def keep_best(self) -> None:
        """Note that the present parameters are the best so far."""
        self.best = self.stepper.programs.state_dict()
        if self.folder is None:
            return
        content = self._content()
        if self._is_first:
            self.folder.save_best(content)

    def restore(self, content: dict[str, Any]) -> None:
        """Go back to the step that ``content`` was saved at."""
        stepper = self.stepper
        stepper.programs.load_state_dict(content["programs"])
        stepper.optimizer.load_state_dict(content["optimizer"])
        if stepper.scheduler is not None and content["scheduler"] is not None:
            stepper.scheduler.load_state_dict(content["scheduler"])
        stepper.count.known = dict(content["counts"])
        self.objective.load_state_dict(content["objective"])
        self.state.load_state_dict(content["state"])
        self.saved_at = self.state.step
        fabric = stepper.fabric
        self.best = fabric.broadcast(self._saved_best() if self._is_first else None)
        set_random_state(content["random"][fabric.global_rank])

    def restore_best(self) -> None:
        """Put the best parameters back into the programs."""
        if self.best is not None:
            self.stepper.programs.load_state_dict(self.best)

    def _saved_best(self) -> dict[str, Any] | None:
        """The best parameters, unless their file is from beyond this step."""
        if self.folder is None or self.state.best_step is None or not self.folder.best.is_file():
            return None
        content = read(self.folder.best, "training")
        return content["programs"] if content["state"]["step"] <= self.state.step else None

    def _content(self) -> dict[str, Any]:
        stepper = self.stepper
        return {
            "programs": stepper.programs.state_dict(),
            "optimizer": stepper.optimizer.state_dict(),
            "scheduler": None if stepper.scheduler is None else stepper.scheduler.state_dict(),
            "counts": stepper.count.known,
            "objective": self.objective.state_dict(),
            "state": self.state.state_dict(),
            "random": self._random_states(),
            "config": self.config,
        }

    @property
    def _is_first(self) -> bool:
        return bool(self.stepper.fabric.is_global_zero)

    def _random_states(self) -> list[dict[str, Any]]:
        """The random state of every process, by rank."""
        states: list[Any] = [None] * self.stepper.fabric.world_size
        if len(states) == 1:
            return [random_state()]
        torch.distributed.all_gather_object(states, random_state())
        return states
