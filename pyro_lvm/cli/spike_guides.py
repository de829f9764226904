"""Spike guides kept in run directories, and recordings at the frame rates that they know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_lvm.data import Traces, resample
from pyro_lvm.errors import DataError, explain
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.training.checkpoint import read, write

__all__ = ["at_rate_of", "load_guide", "save_guide"]

_FILE, _KIND = "guide.ckpt", "spike guide"
_NEAR = 0.1
"""Share by which a frame rate may differ from the one that a guide was trained at."""


def save_guide(guide: SpikeGuide, options: Mapping[str, Any], folder: Path) -> None:
    """Write the parameters of a guide and what it takes to build it to ``folder``.

    Args:
        guide: with the encoder that it has by default.
        options: that it was built with, beside the rate.
        folder: the run directory.
    """
    parameters = {name: value.detach().cpu() for name, value in guide.state_dict().items()}
    content = {"options": dict(options), "rate": guide.rate, "parameters": parameters}
    write(folder / _FILE, _KIND, content)


def load_guide(folder: Path) -> SpikeGuide:
    """The guide of an earlier run.

    Raises:
        CheckpointError: there is none in ``folder``, or it is damaged.
    """
    content = read(folder / _FILE, _KIND)
    guide = SpikeGuide(rate=content["rate"], **content["options"])
    guide.load_state_dict(content["parameters"])
    return guide


def at_rate_of(guide: SpikeGuide, traces: Traces) -> tuple[SpikeGuide, Traces]:
    """Both at one frame rate: a guide knows rates within 10 % of that it was trained at.

    Faster recordings are resampled to the guide's rate, see :func:`pyro_lvm.data.resample`.

    Raises:
        DataError: the recording is slower.

    Example:
        >>> import torch
        >>> fast = Traces(torch.randn(1, 90), rate=90.0)
        >>> guide, traces = at_rate_of(SpikeGuide(rate=30.0), fast)
        >>> guide.rate, traces.rate
        (30.0, 30.0)
    """
    ratio = traces.rate / guide.rate
    if ratio < 1 - _NEAR:
        expected = f"at least {guide.rate:g} Hz, the rate that the guide was trained at"
        hint = "Train a guide at this rate: leave out --guide."
        raise DataError(explain("rate", expected, f"{traces.rate:g} Hz", hint))
    if ratio > 1 + _NEAR:
        return guide, resample(traces, guide.rate)
    return guide.at(traces.rate), traces
