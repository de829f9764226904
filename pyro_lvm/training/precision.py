"""Densities in float32 of what networks compute in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Transform

from pyro_lvm.training.fabric import Fabric

__all__ = ["InFloat32", "full_densities", "placed", "widened"]

_NARROW = (torch.bfloat16, torch.float16)


class InFloat32(Messenger):
    """Draws and scores every site in float32, whatever autocast made of its parameters.

    A log-probability of 500 nats has an error of up to 1 in bfloat16, with its 8 bits, and a draw
    around 3 a step of 2 ** -6.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["fn"] = widened(msg["fn"])


def full_densities(fabric: Fabric) -> AbstractContextManager[Any]:
    """What programs run in beside Fabric's autocast; nothing where it has none."""
    return InFloat32() if _is_mixed(fabric) else nullcontext()


def placed(fabric: Fabric, batch: Any) -> Any:
    """A batch where, and in the precision in which, Fabric computes; autocast casts by itself."""
    moved = fabric.to_device(batch)
    return moved if _is_mixed(fabric) else fabric.strategy.precision.convert_input(moved)


def _is_mixed(fabric: Fabric) -> bool:
    return str(fabric.strategy.precision.precision).endswith("mixed")


def widened(part: Any) -> Any:
    """A distribution with the half-precision tensors in it, and in its parts, as float32.

    Example:
        >>> import pyro.distributions as dist
        >>> loc = torch.tensor([0.5, 1.0], dtype=torch.bfloat16)
        >>> widened(dist.Normal(loc, 1.0).to_event(1)).base_dist.loc
        tensor([0.5000, 1.0000])
    """
    if isinstance(part, Tensor):
        return part.float() if part.dtype in _NARROW else part
    if isinstance(part, list):
        wide = [widened(one) for one in part]
        return wide if any(new is not old for new, old in zip(wide, part)) else part
    if not isinstance(part, Distribution | Transform):
        return part
    changed = {n: w for n, v in vars(part).items() if n != "_inv" and (w := widened(v)) is not v}
    return _with(part, changed) if changed else part


def _with(part: Any, attributes: dict[str, Any]) -> Any:
    """A copy with other attributes; a transform makes its inverse anew."""
    other = copy(part)
    vars(other).update(attributes)
    if isinstance(part, Transform):
        other._inv = None
    return other
