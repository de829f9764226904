"""When a discriminator tells its two kinds of draws apart so well that its logits say little."""

from __future__ import annotations

from warnings import warn

import torch
from torch import Tensor

from pyro_lvm.errors import explain

__all__ = ["MAX_ACCURACY", "MAX_LOGIT", "Watch", "accuracy"]

MAX_ACCURACY = 0.99
MAX_LOGIT = 10.0
"""Nats: where one distribution has e^10 times the density, no batch has draws of the other."""

_EVERY = 500
_WEIGHT = 0.01  # of the newest step in the running means


def accuracy(real: Tensor, fake: Tensor, dim: int | None = None) -> Tensor:
    """Share of logits on their right side: the guide's, ``real``, above 0, the others below."""
    return 0.5 * ((real > 0).to(real).mean(dim) + (fake < 0).to(fake).mean(dim))


class Watch:
    """Warns once of a saturated discriminator.

    The running means are tensors, read every 500 steps only, so that an accelerator is not
    waited for in between.

    Args:
        name: what the warning calls the discriminator.
        hint: what it says to try.
    """

    def __init__(self, name: str, hint: str) -> None:
        self.name, self.hint = name, hint
        self.means: Tensor | None = None  # accuracy, and |T| at the guide's draws
        self.num_steps = 0
        self.is_done = False

    def __call__(self, real: Tensor, fake: Tensor) -> None:
        """Take in the logits of one training step."""
        now = torch.stack([accuracy(real, fake), real.abs().mean()]).detach()
        self.means = now if self.means is None else self.means.to(now).lerp(now, _WEIGHT)
        self.num_steps += 1
        if self.num_steps % _EVERY == 0 and not self.is_done:
            self._warn(*self.means.tolist())

    def _warn(self, share: float, logit: float) -> None:
        if share > MAX_ACCURACY or logit > MAX_LOGIT:
            self.is_done = True
            warn(
                explain(
                    f"discriminator {self.name}",
                    f"at most {MAX_ACCURACY:.0%} of its draws told apart, "
                    f"and logits of {MAX_LOGIT:.0f} nats",
                    f"{share:.1%} and {logit:.1f}: it is saturated, the ratio is not to be trusted",
                    self.hint,
                ),
                stacklevel=2,
            )
