"""One training step: loss, gradient, guard, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_lvm.errors import NonFiniteError, PyroLVMError, explain
from pyro_lvm.nonfinite import first_nonfinite
from pyro_lvm.training.compiled_step import CompiledStep
from pyro_lvm.training.evaluate import DatumCount
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.precision import full_densities
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.state import TrainingState
from pyro_lvm.training.updating import cut

__all__ = ["Stepper"]


@dataclass
class Stepper:
    """Minimises the loss per datum; leaves the parameters alone where it is not finite.

    Attributes:
        fabric: devices, precision and processes.
        programs: the model and guide.
        loss: ``objective(model, guide)``, set up by ``fabric``.
        optimizer: set up by ``fabric``.
        scheduler: stepped once per update.
        parameters: what the optimiser changes.
        compiled: takes the whole step, if given.
        count: the number of data a loss speaks for.
        max_grad_norm: the gradient's norm is cut to this.
        max_skips: updates that may be left out in a row before it is an error; 0 for none.
        check_every_step: Pyro checks arguments and values at every step, not in the first
            epoch and at the first step of a run alone.
    """

    fabric: Fabric
    programs: Programs
    loss: Any
    optimizer: Optimizer
    scheduler: LRScheduler | None
    parameters: Sequence[Tensor]
    compiled: CompiledStep | None
    count: DatumCount
    max_grad_norm: float | None
    max_skips: int
    check_every_step: bool
    _is_checked: bool = False

    def __call__(self, batch: Batch, state: TrainingState) -> tuple[float, float]:
        """Loss in nats per datum and gradient norm of one step on ``batch``."""
        cause = None
        try:
            loss, norm = self._checked_gradient(batch, state)
        except ValueError as error:
            if isinstance(error, PyroLVMError) or "invalid values" not in str(error):
                raise
            cause, loss, norm = error, nan, nan  # parameters out of a distribution's range
        if isfinite(loss) and isfinite(norm):
            self._update()
            state.skipped_in_a_row = 0
        else:
            self._skip(batch, state, loss, norm, cause)
        self.optimizer.zero_grad()
        return loss, norm

    def _checked_gradient(self, batch: Batch, state: TrainingState) -> tuple[float, float]:
        """With Pyro's checks where they have something new to see."""
        if self.check_every_step or state.epoch == 0 or not self._is_checked:
            self._is_checked = True
            return self._gradient(batch)
        try:
            with pyro.validation_enabled(False):
                return self._gradient(batch)
        except (ValueError, RuntimeError):
            self.optimizer.zero_grad()
            self._gradient(batch)  # the checks say it better
            raise

    def _gradient(self, batch: Batch) -> tuple[float, float]:
        if self.compiled is not None:
            count = self.count(batch)
            with full_densities(self.fabric), self.fabric.autocast():
                return self._read(self.compiled.taken(count, batch.args, batch.kwargs))
        with full_densities(self.fabric):
            loss = self.loss(*batch.args, **batch.kwargs) / self.count(batch)
        self.fabric.backward(loss)
        norm = cut(self.parameters, self.max_grad_norm)
        return self._read(torch.stack([loss.detach(), norm.to(loss)]))

    def _read(self, values: Tensor) -> tuple[float, float]:
        """Loss and norm in one transfer, averaged over processes."""
        mean: Any = self.fabric.all_reduce(values, reduce_op="mean")
        loss, norm = mean.tolist()
        return loss, norm

    def _update(self) -> None:
        if self.compiled is None:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def _skip(
        self,
        batch: Batch,
        state: TrainingState,
        loss: float,
        norm: float,
        cause: ValueError | None,
    ) -> None:
        state.skipped += 1
        state.skipped_in_a_row += 1
        alone = cause is None or self.fabric.world_size == 1  # else others wait for a gradient
        if state.skipped_in_a_row <= self.max_skips and alone:
            return
        raise NonFiniteError(
            explain(
                f"step {state.step + 1}",
                "a finite loss and gradient",
                f"loss {loss:.6g} and gradient norm {norm:.6g}; first not finite: "
                + self._culprit(batch),
                "Lower lr, set max_grad_norm, keep scales away from 0, or pass "
                "on_nonfinite='skip' to leave out such updates. Parameters are unchanged.",
            )
        ) from cause

    def _culprit(self, batch: Batch) -> str:
        """The first site that is not finite, looked for without Pyro's own checks."""
        programs = self.programs
        try:
            with pyro.validation_enabled(False):
                return first_nonfinite(programs.model, programs.guide, batch.args, batch.kwargs)
        except (ValueError, RuntimeError) as error:
            return str(error)
