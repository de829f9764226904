"""Variational objectives: one file a family, one line here."""

from pyro_lvm.objectives.elbo import ELBO
from pyro_lvm.objectives.iwae import IWAE
from pyro_lvm.objectives.renyi import Renyi

__all__ = ["ELBO", "IWAE", "Renyi"]
