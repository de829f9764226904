"""How a family is trained: steps, rates, and the rows that decide when it was best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyro_lvm.imputation.families import Programs
from pyro_lvm.training import FitResult, fit

__all__ = ["Budget", "trained"]

_FEWEST_TO_HOLD_OUT, _MOST_TO_HOLD_OUT = 100, 2000
_EVALUATIONS = 20
_MAX_GRAD_NORM = 10.0


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train.

    Attributes:
        max_steps: of Adam.
        batch_size: rows a step, at most.
        learning_rate: at the start; it falls to 0.
        validation: share of the rows to hold out, if there are at least 100; 2000 at most.
        seed: of the run.
    """

    max_steps: int
    batch_size: int
    learning_rate: float
    validation: float
    seed: int


def trained(
    programs: Programs, num_rows: int, budget: Budget, options: Mapping[str, Any]
) -> FitResult:
    """Train in place, and keep the parameters of the best held-out bound.

    Args:
        programs: what is trained, on ``num_rows`` rows.
        num_rows: N.
        budget: how.
        options: further ones of :func:`pyro_lvm.fit`, which count more than those made here.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the training.
    """
    held_out = programs.judged and num_rows >= _FEWEST_TO_HOLD_OUT
    made: dict[str, Any] = {
        "max_steps": budget.max_steps,
        "batch_size": min(budget.batch_size, num_rows),
        "validation": min(budget.validation, _MOST_TO_HOLD_OUT / num_rows) if held_out else None,
        "restore_best": held_out,
        "lr": budget.learning_rate,
        "lr_scheduler": "cosine",
        "max_grad_norm": _MAX_GRAD_NORM,
        "seed": budget.seed,
        "transform": programs.transform,
        "allow_nan": True,
        "evaluate_every": max(1, budget.max_steps // _EVALUATIONS),
        "diagnostic_particles": 0,
    }
    parts = (programs.model, programs.guide, programs.data, programs.objective)
    result = fit(*parts, **{**made, **options})
    if result.interrupted:
        raise KeyboardInterrupt
    return result
