"""Latent variable models on Pyro: a bound, a gradient and a guide, chosen independently.

``import pyro_lvm`` is cheap: the names below are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro_lvm.diagnostics import impute, sample_posterior
    from pyro_lvm.imputation import LatentImputer
    from pyro_lvm.training import FitResult, fit

__all__ = ["FitResult", "LatentImputer", "__version__", "fit", "impute", "sample_posterior"]

__version__ = "0.1.0"

_HOMES = {
    "FitResult": "pyro_lvm.training",
    "LatentImputer": "pyro_lvm.imputation",
    "fit": "pyro_lvm.training",
    "impute": "pyro_lvm.diagnostics",
    "sample_posterior": "pyro_lvm.diagnostics",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'pyro_lvm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
