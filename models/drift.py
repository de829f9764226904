"""Slow parts of a trace: what drifts, and what is left of the calcium from before it began."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

__all__ = ["drift_columns", "remnant_column"]


def drift_columns(num_frames: int, rate: float, period: float, like: Tensor) -> Tensor:
    r"""Half waves :math:`\cos \pi k (t + 1/2) / T` no faster than ``period``, ``(T, R)``.

    R = 1 + floor(2 T / (rate period)): the first column is constant, the others complete a
    cycle in ``period`` seconds or more. With independent Normal weights of scale s they are a
    drift of mean variance :math:`s^2`.

    Args:
        num_frames: T.
        rate: frames per second.
        period: seconds of the fastest.
        like: gives dtype and device.

    Example:
        >>> columns = drift_columns(600, rate=30.0, period=10.0, like=torch.zeros(1))
        >>> columns.shape, columns.square().sum(-1).mean()
        (torch.Size([600, 5]), tensor(1.))
    """
    fastest = int(2 * num_frames / (rate * period))
    wave = torch.arange(fastest + 1).to(like)
    time = (torch.arange(num_frames).to(like) + 0.5) / num_frames
    height = ((1 + wave.clamp(max=1)) / (fastest + 1)).sqrt()
    return height * torch.cos(pi * time.unsqueeze(-1) * wave)


def remnant_column(num_frames: int, rate: float, decay: Tensor) -> Tensor:
    """What is left at each frame of fluorescence 1 before the first, ``(*batch, T, 1)``.

    Args:
        num_frames: T.
        rate: frames per second.
        decay: time constant, ``(*batch, 1)`` seconds.

    Example:
        >>> remnant_column(3, rate=10.0, decay=torch.tensor([0.1])).squeeze(-1)
        tensor([0.3679, 0.1353, 0.0498])
    """
    frames = torch.arange(1, num_frames + 1).to(decay)
    return torch.exp(-frames / (rate * decay)).unsqueeze(-1)
