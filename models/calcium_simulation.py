"""Simulated recordings: cells with parameters from known ranges, their spikes and traces."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.models.calcium_presets import PRESETS
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.nn import check_choice, check_size

__all__ = ["PRESETS", "Recording", "draw_cells", "record", "scale_of_level", "simulate"]

_MEDIAN_STEP = 0.6744897501960817 * sqrt(2)  # |difference| of two Normals of scale 1
_MOST_SPIKES, _GAPS = 6, (0.010, 0.020)  # of a burst; seconds between them


class Recording(NamedTuple):
    """Simulated cells.

    Attributes:
        traces: ``(num_cells, T)`` dF/F.
        spikes: ``(num_cells, T)``, the truth.
        model: the model they come from, each parameter at its true value.
    """

    traces: Tensor
    spikes: Tensor
    model: FluorescenceModel


def simulate(
    preset: str = "linear",
    num_cells: int = 10,
    num_frames: int = 2000,
    rate: float = 60.0,
    *,
    spikes: str = "bernoulli",
    bursts: float = 0.0,
    seed: int = 0,
) -> Recording:
    """Cells of a preset, recorded. The same seed gives the same recording.

    Args:
        preset: one of ``PRESETS``.
        num_cells: how many.
        num_frames: T.
        rate: frames per second.
        spikes: "bernoulli" or "poisson", what a frame can hold.
        bursts: see :func:`record`.
        seed: of all that is drawn; torch's own random state stays as it was.

    Raises:
        ProgramError: an unknown preset, a size below 1, a rate of 0 or less.

    Example:
        >>> recording = simulate("gcamp6s", num_cells=3, num_frames=600, rate=30.0)
        >>> recording.traces.shape, recording.spikes.sum(-1)
        (torch.Size([3, 600]), tensor([...]))
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return record(draw_cells(preset, num_cells, rate, spikes=spikes), num_frames, bursts)


def draw_cells(
    preset: str, num_cells: int, rate: float, *, spikes: str = "bernoulli"
) -> FluorescenceModel:
    """A preset's model with parameters drawn for each cell, by torch's random state.

    Raises:
        ProgramError: an unknown preset, a size below 1, a rate of 0 or less.

    Example:
        >>> model = draw_cells("linear", num_cells=100, rate=60.0)
        >>> bool((model.decay > 0.27).all() and (model.decay < 1.67).all())
        True
    """
    check_choice("preset", preset, PRESETS)
    make, options, ranges = PRESETS[preset]
    model = make(rate, num_cells=num_cells, spikes=spikes, **options)
    for name, (least, most) in ranges.items():
        drawn = least * (most / least) ** torch.rand(num_cells)
        if name == "noise_level":
            model.noise_scale = scale_of_level(drawn, rate)
        else:
            setattr(model, name, drawn)
    return model


@torch.no_grad()
def record(model: FluorescenceModel, num_frames: int, bursts: float = 0.0) -> Recording:
    """One trace of each cell of a model, drawn by torch's random state.

    Args:
        model: of one trace a cell, with spikes that are not relaxed.
        num_frames: T.
        bursts: the part of spikes that begin a burst of 2 to 6, 10 to 20 ms apart, between 0
            and 1. It is no part of the model, whose spikes are independent of each other; where
            they are Bernoulli, spikes of a burst that fall into one frame are one.

    Raises:
        ProgramError: a size below 1, a part outside of 0 to 1.

    Example:
        >>> model = draw_cells("gcamp6f", num_cells=4, rate=30.0, spikes="poisson")
        >>> bursty = record(model, num_frames=3000, bursts=0.2)
        >>> calm = record(model, num_frames=3000)
        >>> bool(bursty.spikes.sum() > calm.spikes.sum())
        True
    """
    if not 0 <= bursts <= 1:
        hint = "Pass bursts=0.2, say."
        raise ProgramError(explain("bursts", "a part between 0 and 1", repr(bursts), hint))
    spikes = model.prior(check_size("num_frames", num_frames))["spikes"].sample()
    spikes = spikes + _later_spikes(spikes, bursts, model.rate)
    if model.spikes == "bernoulli":
        spikes = spikes.clamp(max=1)
    return Recording(model.decode(spikes).sample(), spikes, model)


def scale_of_level(level: Tensor, rate: float) -> Tensor:
    r"""The scale in dF/F of white noise of a level in the unit of the field.

    The level :math:`\nu = \mathrm{median}_t |x_{t+1} - x_t| / \sqrt f`, in percent of dF/F per
    root Hz, compares recordings of any frame rate f: about 1 is very good, 3 to 4 decent. The
    scale is :math:`1.048 \nu \sqrt f / 100`.

    References:
        Rupprecht et al. (2021), *A database and deep learning toolbox for noise-optimized,
        generalized spike inference from calcium imaging*, Nature Neuroscience 24.

    Example:
        >>> scale_of_level(torch.tensor([1.0, 2.0, 4.0]), rate=30.0)
        tensor([0.0574, 0.1148, 0.2297])
    """
    return level * (sqrt(rate) / (100 * _MEDIAN_STEP))


def _later_spikes(first: Tensor, bursts: float, rate: float) -> Tensor:  # (num_cells, T)
    """Those that follow the first of each burst."""
    begins = (torch.rand_like(first) < bursts) & (first > 0)
    count = torch.randint(1, _MOST_SPIKES, first.shape, device=first.device) * begins
    gap = torch.empty_like(first).uniform_(*_GAPS) * rate  # frames
    frame = torch.arange(first.shape[-1], device=first.device) + 0.5
    later = torch.zeros_like(first)
    for number in range(1, _MOST_SPIKES):
        place = (frame + number * gap).long()
        added = ((number <= count) & (place < len(frame))).to(first)
        later.scatter_add_(-1, place.clamp(max=len(frame) - 1), added)
    return later
