"""Guide families: one file each, one line here."""

from pyro_lvm.guides.amortized_bernoulli import AmortizedBernoulli
from pyro_lvm.guides.amortized_categorical import AmortizedCategorical
from pyro_lvm.guides.amortized_flow import AmortizedFlow
from pyro_lvm.guides.amortized_normal import AmortizedNormal
from pyro_lvm.guides.autoregressive import AutoregressiveGuide
from pyro_lvm.guides.auxiliary import AuxiliaryNormal
from pyro_lvm.guides.conditioning import ConditioningGuide
from pyro_lvm.guides.dendritic_spikes import DendriticSpikeGuide
from pyro_lvm.guides.gibbs import GibbsGuide
from pyro_lvm.guides.gibbs_conditionals import GibbsConditionals
from pyro_lvm.guides.hierarchical_normal import HierarchicalNormal
from pyro_lvm.guides.implicit import ImplicitGuide
from pyro_lvm.guides.implicit_weights import ImplicitWeights
from pyro_lvm.guides.kernel_encoder import KernelEncoder
from pyro_lvm.guides.kernel_posterior import KernelPosterior
from pyro_lvm.guides.ladder import LadderNormal
from pyro_lvm.guides.mixture_weights import MixtureWeights
from pyro_lvm.guides.normal_weights import NormalWeights
from pyro_lvm.guides.semi_amortized import SemiAmortized
from pyro_lvm.guides.semi_implicit import SemiImplicitGuide
from pyro_lvm.guides.semi_implicit_weights import SemiImplicitWeights
from pyro_lvm.guides.spikes import SpikeGuide
from pyro_lvm.guides.structured import StructuredGuide
from pyro_lvm.guides.without_labels import WithoutLabels

__all__ = [
    "AmortizedBernoulli",
    "AmortizedCategorical",
    "AmortizedFlow",
    "AmortizedNormal",
    "AutoregressiveGuide",
    "AuxiliaryNormal",
    "ConditioningGuide",
    "DendriticSpikeGuide",
    "GibbsConditionals",
    "GibbsGuide",
    "HierarchicalNormal",
    "ImplicitGuide",
    "ImplicitWeights",
    "KernelEncoder",
    "KernelPosterior",
    "LadderNormal",
    "MixtureWeights",
    "NormalWeights",
    "SemiAmortized",
    "SemiImplicitGuide",
    "SemiImplicitWeights",
    "SpikeGuide",
    "StructuredGuide",
    "WithoutLabels",
]
