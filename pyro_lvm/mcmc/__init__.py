"""Markov chains that use a guide, or a generator, as their proposal."""

from pyro_lvm.mcmc.corrected_draws import CorrectedDraws
from pyro_lvm.mcmc.implicit import ImplicitMetropolisHastings
from pyro_lvm.mcmc.independent import IndependentMetropolisHastings
from pyro_lvm.mcmc.markov import MarkovMetropolisHastings
from pyro_lvm.mcmc.random_walk import RandomWalk

__all__ = [
    "CorrectedDraws",
    "ImplicitMetropolisHastings",
    "IndependentMetropolisHastings",
    "MarkovMetropolisHastings",
    "RandomWalk",
]
