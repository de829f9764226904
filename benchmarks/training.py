"""Adam on a module of programs whose arguments may be drawn anew each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["train"]


def train(
    module: nn.Module,
    parameters: Iterable[Tensor],
    arguments: Callable[[], tuple[Any, ...]],
    steps: int,
    rate: float,
    per: int = 1,
) -> None:
    """``steps`` of Adam on the loss divided by ``per``; the rate falls to 0 in the last half."""
    optimiser = torch.optim.Adam(list(parameters), rate)
    level_then_falling = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 2.0 * (1.0 - step / steps))
    )
    for _ in range(steps):
        optimiser.zero_grad()
        (module(*arguments()) / per).backward()
        optimiser.step()
        level_then_falling.step()
