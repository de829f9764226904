"""One training step: loss, gradient, guard, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_lvm.errors import NonFiniteError, PyroLVMError, explain
from pyro_lvm.nonfinite import first_nonfinite
from pyro_lvm.training.evaluate import DatumCount
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.precision import full_densities
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.state import TrainingState

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
        with full_densities(self.fabric):
            loss = self.loss(*batch.args, **batch.kwargs) / self.count(batch)
        self.fabric.backward(loss)
        return self._read(loss.detach(), self._clipped_norm())

    def _clipped_norm(self) -> Tensor:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        if self.max_grad_norm is not None:
            clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        return norm

    def _read(self, loss: Tensor, norm: Tensor) -> tuple[float, float]:
        """Both numbers in one transfer, the loss averaged over processes."""
        values = torch.stack([loss, norm.to(loss)])
        mean: Any = self.fabric.all_reduce(values, reduce_op="mean")
        loss_value, norm_value = mean.tolist()
        return loss_value, norm_value

    def _update(self) -> None:
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
