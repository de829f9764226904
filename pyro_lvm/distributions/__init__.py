"""Distributions that models and guides share and Pyro does not have: one file each."""

from pyro_lvm.distributions.autoregressive import Autoregressive, StepNetwork
from pyro_lvm.distributions.entries import Entries
from pyro_lvm.distributions.straight_through import (
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)

__all__ = [
    "Autoregressive",
    "Entries",
    "StepNetwork",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
]
