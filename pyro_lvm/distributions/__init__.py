"""Distributions that models and guides share and Pyro does not have: one file each."""

from pyro_lvm.distributions.straight_through import (
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)

__all__ = ["StraightThroughBernoulli", "StraightThroughOneHotCategorical"]
