"""Markov chains that use a guide as their proposal."""

from pyro_lvm.mcmc.independent import IndependentMetropolisHastings

__all__ = ["IndependentMetropolisHastings"]
