r"""Noise of a trace, and the unit in which recordings of any frame rate are compared.

The noise level is :math:`\nu = \mathrm{median}_t |x_{t+1} - x_t| / \sqrt f`, in percent of dF/F
per root Hz: about 1 is very good, 3 to 4 decent, above 5 poor.

References:
    Rupprecht et al. (2021), *A database and deep learning toolbox for noise-optimized,
    generalized spike inference from calcium imaging*, Nature Neuroscience 24.
"""

from __future__ import annotations

from math import sqrt

from torch import Tensor

__all__ = ["QUARTILE", "noise_level", "scale_of_level", "white_noise_scale"]

QUARTILE = 0.6744897501960817  # of a standard Normal; half of its |values| are below
_TO_SCALE = 1 / (QUARTILE * sqrt(2))


def noise_level(x: Tensor, rate: float) -> Tensor:  # (*batch,)
    r"""The level :math:`\nu`, percent, of traces ``(*batch, T)``; frames may be NaN.

    Args:
        x: dF/F.
        rate: frames per second.

    Example:
        White noise of scale 0.05 at 25 frames per second.

        >>> import torch
        >>> noise_level(0.05 * torch.randn(100_000), rate=25.0)
        tensor(0.95...)
    """
    return 100 / sqrt(rate) * _step(x)


def white_noise_scale(x: Tensor) -> Tensor:  # (*batch,)
    """The scale of white noise in traces ``(*batch, T)``, from the differences of neighbours.

    Example:
        >>> import torch
        >>> white_noise_scale(0.05 * torch.randn(100_000))
        tensor(0.050...)
    """
    return _TO_SCALE * _step(x)


def scale_of_level(level: Tensor | float, rate: float) -> Tensor | float:
    r"""The scale in dF/F of white noise of level :math:`\nu`: :math:`1.048 \nu \sqrt f / 100`.

    Example:
        >>> round(scale_of_level(1.0, rate=30.0), 3), round(scale_of_level(4.0, rate=30.0), 3)
        (0.057, 0.23)
    """
    return _TO_SCALE * sqrt(rate) / 100 * level


def _step(x: Tensor) -> Tensor:
    """The median size of a step from frame to frame."""
    return x.diff(dim=-1).abs().nanmedian(-1).values
