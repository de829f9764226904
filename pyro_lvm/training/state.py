"""Where training stands, and the callbacks that see it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["COLUMNS", "Callback", "History", "Row", "TrainingState"]

Row = dict[str, float | int | None]
History = dict[str, list[float | int | None]]

COLUMNS = (
    "step",
    "epoch",
    "loss",  # training, nats per datum, mean since the row before
    "grad_norm",
    "learning_rate",
    "skipped",  # updates left out so far
    "bound",  # held out, nats per datum
    "ess",  # effective sample size, share of the particles, mean over data
    "khat",  # Pareto k-hat, median over data
    "khat_high",  # share of data with k-hat above 0.7
)


@dataclass
class TrainingState:
    """The counters of a run; all of it goes into a checkpoint.

    Attributes:
        step: training steps done, skipped ones among them.
        epoch: epochs completed.
        index: steps done in the present epoch.
        skipped: updates left out because they were not finite.
        skipped_in_a_row: of these, the latest run of them.
        best_bound: best held-out bound so far, nats per datum.
        best_step: the step it was reached at.
        stale_evaluations: evaluations since then.
        loss_sum: training loss summed since the last row, and
        loss_count: the number of steps in that sum.
        latest: epoch and gradient norm of the latest step.
        history: one list per column of ``COLUMNS``.
        stop: set it to end training after this step.

    Example:
        >>> state = TrainingState()
        >>> for loss in (3.0, 2.5):
        ...     state.advance(steps_in_epoch=2)
        ...     state.record({"step": state.step, "loss": loss})
        >>> state.epoch, state.epoch_ended, state.history["loss"]
        (1, True, [3.0, 2.5])
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_bound: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    latest: Row = field(default_factory=dict)
    history: History = field(default_factory=lambda: {name: [] for name in COLUMNS})
    stop: bool = False

    @property
    def epoch_ended(self) -> bool:
        """Whether the latest step was the last of its epoch."""
        return self.index == 0 and self.step > 0

    def advance(self, steps_in_epoch: int) -> None:
        """Count one step."""
        self.step += 1
        self.index += 1
        if self.index >= steps_in_epoch:
            self.epoch, self.index = self.epoch + 1, 0

    def record(self, row: Row) -> None:
        """Append ``row`` to the history; columns it lacks get None."""
        for name in COLUMNS:
            self.history[name].append(row.get(name))

    def forget(self, step: int) -> Row:
        """Take the last row out of the history, if it is of ``step``."""
        if not self.history["step"] or self.history["step"][-1] != step:
            return {}
        return {name: column.pop() for name, column in self.history.items()}

    def rows(self) -> list[Row]:
        """The history row by row."""
        return [dict(zip(self.history, values)) for values in zip(*self.history.values())]

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for entry in fields(self):
            setattr(self, entry.name, state[entry.name])
        self.stop = False


class Callback:
    """Base of what ``fit(callbacks=[...])`` calls; override either method.

    Both see the live :class:`TrainingState`: read its counters and history, or set
    ``state.stop = True`` to end training.

    Example:
        >>> class StopAt(Callback):
        ...     def on_step_end(self, state):
        ...         state.stop = state.step >= 3
    """

    def on_step_end(self, state: TrainingState) -> None:
        """Called after every step, before it is saved."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Called after the last step of every epoch."""
