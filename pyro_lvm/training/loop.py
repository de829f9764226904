"""The training loop: what happens after which step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any

import torch

from pyro_lvm.training.evaluate import Evaluator
from pyro_lvm.training.interrupt import Interrupt
from pyro_lvm.training.loader import Batch, Batches
from pyro_lvm.training.metrics import MetricLog, Progress
from pyro_lvm.training.snapshots import Snapshots
from pyro_lvm.training.state import Callback, Row, TrainingState
from pyro_lvm.training.step import Stepper

__all__ = ["Limits", "Loop"]


@dataclass(frozen=True)
class Limits:
    """When to stop, evaluate, log and save; None is never, or each epoch's end for ``every``."""

    max_epochs: int | None
    max_steps: int | None
    patience: int | None
    evaluate_every: int | None
    log_every: int
    checkpoint_every: int | None

    def finished(self, state: TrainingState) -> bool:
        return (
            state.stop
            or (self.max_steps is not None and state.step >= self.max_steps)
            or (self.max_epochs is not None and state.epoch >= self.max_epochs)
            or (self.patience is not None and state.stale_evaluations >= self.patience)
        )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run, if nothing ends it early."""
        limits = [self.max_steps, self.max_epochs and self.max_epochs * steps_per_epoch]
        return min(limit for limit in limits if limit is not None)

    def evaluates(self, state: TrainingState) -> bool:
        return _is_due(self.evaluate_every, state)

    def logs(self, state: TrainingState) -> bool:
        return state.step % self.log_every == 0 or self.evaluates(state)

    def saves(self, state: TrainingState) -> bool:
        return _is_due(self.checkpoint_every, state)


@dataclass
class Loop:
    """Trains until a limit or Ctrl-C."""

    stepper: Stepper
    batches: Batches
    evaluator: Evaluator
    limits: Limits
    snapshots: Snapshots
    callbacks: Sequence[Callback]
    state: TrainingState
    log: MetricLog
    progress: Progress
    interrupted: bool = False
    _seconds: float = 0.0
    _steps: int = 0

    @property
    def compile_seconds(self) -> float:
        """Time that training steps took to record and to compile the loss."""
        return float(getattr(self.stepper.loss.module, "compile_seconds", 0.0))

    @property
    def seconds_per_step(self) -> float:
        """Of the rest of that time."""
        seconds = self._seconds - self.compile_seconds
        return seconds / self._steps if self._steps else float("nan")

    def run(self) -> None:
        """Train, save the end, and evaluate it."""
        with Interrupt() as interrupt, closing(self.log), closing(self.progress):
            while not self.limits.finished(self.state) and not self.interrupted:
                self._epoch(interrupt)
            self.snapshots.save()
            if not self.interrupted and not self.limits.evaluates(self.state):
                self._evaluate_end()
            self.interrupted = self._anywhere(interrupt.requested)

    def _epoch(self, interrupt: Interrupt) -> None:
        steps = self.batches.steps(self.state.epoch)
        for batch in self.batches.epoch(self.state.epoch, self.state.index):
            self._one(batch, steps)
            self.interrupted = self._anywhere(interrupt.requested)
            if self.interrupted or self.limits.finished(self.state):
                return

    def _one(self, batch: Batch, steps_in_epoch: int) -> None:
        state, epoch = self.state, self.state.epoch
        started = perf_counter()
        loss, norm = self.stepper(batch, state)
        self._seconds += perf_counter() - started
        self._steps += 1
        state.advance(steps_in_epoch)
        if isfinite(loss):
            state.loss_sum += loss
            state.loss_count += 1
        state.latest = {"epoch": epoch, "grad_norm": norm}
        row = self._row() if self.limits.logs(state) else None
        self.progress.update(row)
        self._call_back()
        if self.limits.saves(state):
            self.snapshots.save()

    def _row(self) -> Row:
        """Record what is known of this step, evaluated if that is due."""
        row = self._metrics()
        if self.limits.evaluates(self.state):
            row |= self.evaluator()
        is_better = self._note_bound(row.get("bound"))
        self.state.record(row)
        self.log.write(row)
        if is_better:
            self.snapshots.keep_best()
        return row

    def _evaluate_end(self) -> None:
        """Evaluate a run that ended between evaluations, for its last row.

        Not in the checkpoint just saved: a run that goes on from there never was here.
        """
        row = self.state.forget(self.state.step) or self._metrics()
        self.state.record(row | self.evaluator())
        self.log.rewrite(self.state.rows())

    def _metrics(self) -> Row:
        state = self.state
        loss = state.loss_sum / state.loss_count if state.loss_count else None
        state.loss_sum, state.loss_count = 0.0, 0
        return {
            **state.latest,
            "step": state.step,
            "loss": loss,
            "learning_rate": self.stepper.optimizer.param_groups[0]["lr"],
            "skipped": state.skipped,
        }

    def _note_bound(self, bound: float | None) -> bool:
        """Whether ``bound`` is the best so far; the counters of early stopping follow."""
        state = self.state
        if bound is None:
            return False
        is_better = isfinite(bound) and self._improves(bound)
        if is_better:
            state.best_bound, state.best_step = bound, state.step
        state.stale_evaluations = 0 if is_better else state.stale_evaluations + 1
        return is_better

    def _improves(self, bound: float) -> bool:
        best, is_upper = self.state.best_bound, self.evaluator.objective.is_upper
        return best is None or (bound < best if is_upper else bound > best)

    def _call_back(self) -> None:
        for callback in self.callbacks:
            callback.on_step_end(self.state)
            if self.state.epoch_ended:
                callback.on_epoch_end(self.state)

    def _anywhere(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process, so that all of them stop at one step."""
        fabric = self.stepper.fabric
        if fabric.world_size == 1:
            return flag
        total: Any = fabric.all_reduce(
            torch.tensor(float(flag), device=fabric.device), reduce_op="sum"
        )
        return bool(total > 0)


def _is_due(every: int | None, state: TrainingState) -> bool:
    return state.epoch_ended if every is None else state.step > 0 and state.step % every == 0
