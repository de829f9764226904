"""Calcium indicators: the values that the models of fluorescence start from."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["INDICATORS"]

INDICATORS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "gcamp6f": {
        "linear": {"amplitude": 0.19, "decay": 0.4},
        "rising": {"rise": 0.021},
        "saturating": {
            "amplitude": 5.6,
            "decay": 0.2,
            "binding": 1.0,
            "unbinding": 0.1,
            "exponent": 2.3,
        },
        "physiological": {
            "amplitude": 0.29,
            "decay": 0.25,
            "rise": 0.03,
            "exponent": 2.3,
            "resting": 1.0,
            "saturation": 0.1,
        },
    },
    "gcamp6s": {
        "linear": {"amplitude": 0.23, "decay": 1.0},
        "rising": {"rise": 0.053},
        "saturating": {
            "amplitude": 2.4,
            "decay": 0.6,
            "binding": 1.0,
            "unbinding": 0.4,
            "exponent": 2.9,
        },
        "physiological": {
            "amplitude": 0.32,
            "decay": 1.0,
            "rise": 0.07,
            "exponent": 2.9,
            "resting": 1.0,
            "saturation": 0.1,
        },
    },
}
"""By indicator and model. One spike from rest then peaks at 19 % (GCaMP6f) or 23 % (GCaMP6s),
and after 60 to 90 or 160 to 280 ms; the Hill exponents are those of the purified proteins.

References:
    Chen et al. (2013), *Ultrasensitive fluorescent proteins for imaging neuronal activity*,
    Nature 499.
"""
