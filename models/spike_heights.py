"""The height of one spike's transient, from fluorescence alone: where a model may start."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, max_pool1d, pad

from pyro_lvm.nn.trace_encoder import noise_scale

__all__ = ["spike_heights"]

_ERRORS = 3.0
"""Standard errors above 0 of a transient that counts as one."""
_FLOOR = 0.5
"""Of the usual height: what is lower is drift or neuropil, of which there is some in any cell."""
_SHARE, _FEWEST = 0.25, 5
"""Of the transients of a cell, the share below the height of one spike; how few say nothing."""


def spike_heights(x: Tensor, transient: Tensor, usual: Tensor) -> Tensor:
    """The height of a single spike in each trace, from its smaller isolated transients.

    At every frame, level and height of a transient that begins there are fitted to the frames
    around it by least squares. Transients are heights above three standard errors, and half of
    the usual one, that no other within half a transient exceeds. Several spikes add up to larger
    ones, so one spike is taken to be their lower quartile. That is biased where noise hides single
    spikes: the usual height stays where it would be below three standard errors, and where there
    are fewer than five transients.

    Args:
        x: ``(B, T)`` dF/F, NaN where a frame is missing.
        transient: ``(B, n)``, of height 1, with the zeros of the frames before it.
        usual: ``(B,)`` dF/F, what is known of the indicator.

    Returns:
        ``(B,)`` dF/F.

    Example:
        >>> fall = torch.exp(-torch.arange(30) / 10.0)
        >>> transient = torch.cat([torch.zeros(5), fall]).unsqueeze(0)
        >>> x = 0.02 * torch.randn(1, 400)
        >>> for start in range(20, 400, 50):
        ...     x[0, start : start + 30] += 0.35 * fall
        >>> spike_heights(x, transient, usual=torch.tensor([0.19])).round(decimals=1)
        tensor([0.3000])
    """
    height, error = _least_squares(x, transient)
    reach = transient.shape[-1] // 2
    highest = max_pool1d(height, 2 * reach + 1, stride=1, padding=reach)
    least = torch.maximum(_ERRORS * error, _FLOOR * usual.unsqueeze(-1))
    found = (height == highest) & (height > least)
    seen = usual > _ERRORS * error.nanmedian(-1).values
    lower = torch.where(found, height, torch.nan).nanquantile(_SHARE, -1)
    return torch.where(seen & (found.sum(-1) >= _FEWEST), lower, usual)


def _least_squares(x: Tensor, transient: Tensor) -> tuple[Tensor, Tensor]:  # (B, T + n - 1) each
    """Height of a transient from each frame on, and its standard error; level fitted, too."""
    observed = (~x.isnan()).to(x)
    values, level = x.nan_to_num(), torch.ones_like(transient)
    frames, height = _slide(observed, level), _slide(observed, transient)
    mean = height / frames
    squares = (_slide(observed, transient**2) - mean * height).clamp_min(torch.finfo(x.dtype).eps)
    product = _slide(values, transient) - mean * _slide(values, level)
    fitted = torch.where(frames > 0, product / squares, 0.0)
    return fitted, noise_scale(x) / squares.sqrt()


def _slide(rows: Tensor, filters: Tensor) -> Tensor:
    """Each row's products with its own filter at every place; beyond its ends are zeros."""
    reach = filters.shape[-1] - 1
    slid: Tensor = conv1d(pad(rows, (reach, reach)), filters.unsqueeze(1), groups=len(rows))
    return slid
