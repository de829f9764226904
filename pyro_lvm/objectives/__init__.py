"""Variational objectives: one file a family, one line here."""

from pyro_lvm.objectives.aae import AAE, IWAAE
from pyro_lvm.objectives.ali import ALI
from pyro_lvm.objectives.alpha_divergence import AlphaDivergence
from pyro_lvm.objectives.analytic_elbo import AnalyticELBO
from pyro_lvm.objectives.avb import AVB, IWAVB
from pyro_lvm.objectives.ciwae import CIWAE
from pyro_lvm.objectives.cubo import CUBO
from pyro_lvm.objectives.dsivi import DSIVI
from pyro_lvm.objectives.elbo import ELBO
from pyro_lvm.objectives.gibbs import VGI
from pyro_lvm.objectives.implicit_acceptance import ImplicitAcceptance
from pyro_lvm.objectives.iwae import IWAE
from pyro_lvm.objectives.iwhvi import IWHVI
from pyro_lvm.objectives.markov_acceptance import MarkovAcceptance
from pyro_lvm.objectives.metropolis_hastings import MHAcceptance
from pyro_lvm.objectives.miwae import MIWAE
from pyro_lvm.objectives.pagan import PAGAN
from pyro_lvm.objectives.piwae import PIWAE
from pyro_lvm.objectives.renyi import Renyi
from pyro_lvm.objectives.second_order import SecondOrderELBO
from pyro_lvm.objectives.semi_implicit_acceptance import SemiImplicitAcceptance
from pyro_lvm.objectives.sivi import SIVI
from pyro_lvm.objectives.tvo import TVO
from pyro_lvm.objectives.uivi import UIVI
from pyro_lvm.objectives.vae_gan import VAEGAN
from pyro_lvm.objectives.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "AAE",
    "ALI",
    "AVB",
    "CIWAE",
    "CUBO",
    "DSIVI",
    "ELBO",
    "IWAAE",
    "IWAE",
    "IWAVB",
    "IWHVI",
    "MIWAE",
    "PAGAN",
    "PIWAE",
    "SIVI",
    "TVO",
    "UIVI",
    "VAEGAN",
    "VGI",
    "AlphaDivergence",
    "AnalyticELBO",
    "ImplicitAcceptance",
    "MHAcceptance",
    "MarkovAcceptance",
    "Renyi",
    "ReweightedWakeSleep",
    "SecondOrderELBO",
    "SemiImplicitAcceptance",
    "WakeSleep",
]
