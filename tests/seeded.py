"""Numbers that are the same on every device."""

from collections.abc import Callable

import torch
from torch import Tensor


def seeded(draw: Callable[..., Tensor], *shape: int, seed: int = 0) -> Tensor:
    """``draw`` is ``torch.rand`` or its like; the numbers are drawn by the CPU."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return draw(*shape, generator=generator, device="cpu").to(torch.get_default_device())
