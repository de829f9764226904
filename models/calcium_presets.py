"""Kinds of cells to simulate: a model, and how its parameters vary between cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pyro_lvm.models.calcium import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.fluorescence import FluorescenceModel

__all__ = ["PRESETS", "Preset"]


class Preset(NamedTuple):
    """A model, the options that it is built with, and the ranges of its parameters.

    A cell's parameter is log-uniform in its range. "noise_level" sets ``noise_scale``, by
    :func:`~pyro_lvm.models.calcium_simulation.scale_of_level`.
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
