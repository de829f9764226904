"""The checks of the report, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyro_lvm.diagnostics.check_amortization import amortization
from pyro_lvm.diagnostics.check_calibration import coverage, sbc, tarp
from pyro_lvm.diagnostics.check_chains import chains
from pyro_lvm.diagnostics.check_collapse import collapse
from pyro_lvm.diagnostics.check_discriminator import discriminator
from pyro_lvm.diagnostics.check_evidence import evidence
from pyro_lvm.diagnostics.check_gap import gap
from pyro_lvm.diagnostics.check_mixing import mixing
from pyro_lvm.diagnostics.check_nuts import nuts
from pyro_lvm.diagnostics.check_predictive import loo_pit, predictive
from pyro_lvm.diagnostics.check_weights import weights
from pyro_lvm.diagnostics.report_case import Check
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["CHECKS", "DEFAULT_CHECKS", "chosen"]

_CHEAP = (
    weights,
    gap,
    chains,
    sbc,
    coverage,
    tarp,
    predictive,
    loo_pit,
    collapse,
    discriminator,
    mixing,
)
_DEAR = (amortization, evidence, nuts)

CHECKS: Mapping[str, Check] = {check.__name__: check for check in _CHEAP + _DEAR}

DEFAULT_CHECKS = tuple(check.__name__ for check in _CHEAP)
"""Those that take seconds."""


def chosen(checks: Sequence[str | Check]) -> dict[str, Check]:
    """The checks of these names, and own ones as they are, by name.

    Raises:
        PyroLVMError: there is no check of that name.
    """
    return dict(_named(check) for check in checks)


def _named(check: str | Check) -> tuple[str, Check]:
    if callable(check):
        return getattr(check, "__name__", type(check).__name__), check
    if check not in CHECKS:
        hint = "Take one of these, or pass a function of your own from a Case to a Finding."
        raise PyroLVMError(explain("checks", f"some of {sorted(CHECKS)}", repr(check), hint))
    return check, CHECKS[check]
