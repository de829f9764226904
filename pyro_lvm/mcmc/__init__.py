"""Markov chains that use a guide as their proposal."""

from pyro_lvm.mcmc.independent import IndependentMetropolisHastings
from pyro_lvm.mcmc.markov import MarkovMetropolisHastings
from pyro_lvm.mcmc.random_walk import RandomWalk

__all__ = ["IndependentMetropolisHastings", "MarkovMetropolisHastings", "RandomWalk"]
