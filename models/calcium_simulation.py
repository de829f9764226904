"""Simulated recordings: cells with parameters from known ranges, their spikes and traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.models.calcium import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.models.noise_level import scale_of_level
from pyro_lvm.nn import check_choice, check_size

__all__ = ["PRESETS", "Preset", "Recording", "draw_cells", "record", "simulate"]

_MOST_SPIKES, _GAPS = 6, (0.010, 0.020)  # of a burst; seconds between them


class Preset(NamedTuple):
    """A model, the options that it is built with, and the ranges of its parameters.

    A cell's parameter is log-uniform in its range. "noise_level" is in percent of dF/F per root
    Hz, and sets ``noise_scale``, see :func:`~pyro_lvm.models.noise_level.scale_of_level`.
    """

    model: type[FluorescenceModel]
    options: Mapping[str, Any]
    ranges: Mapping[str, tuple[float, float]]


_FIELD = {"noise_level": (1.0, 4.0), "firing_rate": (0.2, 2.0), "drift_scale": (0.01, 0.05)}
_SPARSE = {"firing_rate": (0.7, 1.2)}

PRESETS: Mapping[str, Preset] = {
    "linear": Preset(
        LinearCalcium,
        {"drift": False},
        {"amplitude": (0.25, 0.5), "decay": (0.27, 1.67), "noise_scale": (0.07, 0.15), **_SPARSE},
    ),
    "saturating": Preset(
        SaturatingCalcium,
        {"drift": False},
        {
            "amplitude": (4.4, 6.3),
            "decay": (0.21, 0.56),
            "binding": (0.16, 0.44),
            "unbinding": (0.13, 0.21),
            "exponent": (1.97, 2.31),
            "noise_scale": (0.02, 0.05),
            **_SPARSE,
        },
    ),
    "gcamp6f": Preset(
        LinearCalcium,
        {"indicator": "gcamp6f", "rise": True},
        {"amplitude": (0.1, 0.3), "decay": (0.3, 0.55), "rise": (0.015, 0.03), **_FIELD},
    ),
    "gcamp6s": Preset(
        LinearCalcium,
        {"indicator": "gcamp6s", "rise": True},
        {"amplitude": (0.12, 0.36), "decay": (0.75, 1.4), "rise": (0.035, 0.075), **_FIELD},
    ),
    "gcamp6f_binding": Preset(
        PhysiologicalCalcium,
        {"indicator": "gcamp6f"},
        {"amplitude": (0.15, 0.45), "decay": (0.18, 0.35), "saturation": (0.03, 0.3), **_FIELD},
    ),
    "gcamp6s_binding": Preset(
        PhysiologicalCalcium,
        {"indicator": "gcamp6s"},
        {"amplitude": (0.16, 0.5), "decay": (0.75, 1.4), "saturation": (0.03, 0.3), **_FIELD},
    ),
}
"""By name. "linear" and "saturating" (SCDF) are the ranges of Speiser et al. (2017), there given
at 60 Hz, with white noise; the others surround the kinetics of Chen et al. (2013), with drift,
the noise levels of good to decent recordings (Rupprecht et al. 2021) and the rates of cortex."""


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
    with torch.random.fork_rng():
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
