r"""The noise level of a trace: the unit in which recordings of any frame rate are compared.

It is :math:`\nu = \mathrm{median}_t |x_{t+1} - x_t| / \sqrt f`, in percent of dF/F per root Hz:
about 1 is very good, 3 to 4 decent, above 5 poor.

References:
    Rupprecht et al. (2021), *A database and deep learning toolbox for noise-optimized,
    generalized spike inference from calcium imaging*, Nature Neuroscience 24.
"""

from __future__ import annotations

from math import sqrt
from typing import TypeVar

from torch import Tensor

from pyro_lvm.nn.trace_encoder import noise_scale

__all__ = ["noise_level", "scale_of_level"]

_STEP = 0.6744897501960817 * sqrt(2)  # median |difference| of two Normals of scale 1
Level = TypeVar("Level", float, Tensor)


def noise_level(x: Tensor, rate: float) -> Tensor:  # (*batch,)
    r"""The level :math:`\nu`, percent, of traces ``(*batch, T)``; frames may be NaN.

    Args:
        x: dF/F.
        rate: frames per second.

    Example:
        White noise of scale 0.05 at 25 frames per second.

        >>> import torch
        >>> noise_level(0.05 * torch.randn(2, 100_000), rate=25.0).round(decimals=2)
        tensor([0.9500, 0.9500])
    """
    return 100 * _STEP / sqrt(rate) * noise_scale(x).squeeze(-1)


def scale_of_level(level: Level, rate: float) -> Level:
    r"""The scale in dF/F of white noise of level :math:`\nu`: :math:`1.048 \nu \sqrt f / 100`.

    Example:
        >>> round(scale_of_level(1.0, rate=30.0), 3), round(scale_of_level(4.0, rate=30.0), 3)
        (0.057, 0.23)
    """
    return level * (sqrt(rate) / (100 * _STEP))
