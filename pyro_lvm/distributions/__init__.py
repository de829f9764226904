"""Distributions that models and guides share and Pyro does not have: one file each."""

from pyro_lvm.distributions.aggregated_prior import AggregatedPrior
from pyro_lvm.distributions.autoregressive import Autoregressive, StepNetwork
from pyro_lvm.distributions.categorical import CategoricalLikelihood
from pyro_lvm.distributions.cells import Cells
from pyro_lvm.distributions.entries import Entries
from pyro_lvm.distributions.equal_mixture import EqualMixture
from pyro_lvm.distributions.flow import ConditionalFlow, FlowDistribution
from pyro_lvm.distributions.guide_posterior import GuidePosterior
from pyro_lvm.distributions.implicit import Implicit
from pyro_lvm.distributions.likelihoods import (
    BernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from pyro_lvm.distributions.linear_gaussian_chain import LinearGaussianChain
from pyro_lvm.distributions.log_uniform_scale import LogUniformScale
from pyro_lvm.distributions.low_rank_normal import LowRankNormal
from pyro_lvm.distributions.mixed import Columns, MixedLikelihood
from pyro_lvm.distributions.mixture_prior import MixturePrior
from pyro_lvm.distributions.normal_mixture import NormalMixture
from pyro_lvm.distributions.ordinal import OrdinalLikelihood
from pyro_lvm.distributions.partly_known import PartlyKnown
from pyro_lvm.distributions.semi_implicit_prior import SemiImplicitPrior
from pyro_lvm.distributions.stopped_counts import StoppedCounts
from pyro_lvm.distributions.straight_through import (
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)
from pyro_lvm.distributions.structural_causal_prior import StructuralCausalPrior
from pyro_lvm.distributions.vamp_prior import VampPrior

__all__ = [
    "AggregatedPrior",
    "Autoregressive",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "Cells",
    "Columns",
    "ConditionalFlow",
    "Entries",
    "EqualMixture",
    "FlowDistribution",
    "GaussianLikelihood",
    "GuidePosterior",
    "Implicit",
    "Likelihood",
    "LinearGaussianChain",
    "LogUniformScale",
    "LowRankNormal",
    "MixedLikelihood",
    "MixturePrior",
    "NegativeBinomialLikelihood",
    "NormalMixture",
    "OrdinalLikelihood",
    "PartlyKnown",
    "PoissonLikelihood",
    "SemiImplicitPrior",
    "StepNetwork",
    "StoppedCounts",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "StructuralCausalPrior",
    "VampPrior",
]
