"""Generative models: one file each, one line here."""

from pyro_lvm.models.auxiliary_vae import ADGM, SDGM
from pyro_lvm.models.bayesian_conv_net import BayesianConvNet
from pyro_lvm.models.bayesian_lstm import BayesianLSTM
from pyro_lvm.models.bayesian_mlp import BayesianMLP
from pyro_lvm.models.calcium import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.dendrite import DendriticCalcium
from pyro_lvm.models.factor_analysis import FactorAnalysis
from pyro_lvm.models.gaussian_mixture import GaussianMixture
from pyro_lvm.models.hidden_markov import HiddenMarkov
from pyro_lvm.models.hierarchical_vae import HierarchicalVAE
from pyro_lvm.models.identifiable_vae import IdentifiableVAE
from pyro_lvm.models.linear_gaussian_ssm import LinearGaussianSSM
from pyro_lvm.models.linear_regression import BayesianLinearRegression
from pyro_lvm.models.logistic_regression import BayesianLogisticRegression
from pyro_lvm.models.normalizing_flow import NormalizingFlow
from pyro_lvm.models.probabilistic_pca import ProbabilisticPCA
from pyro_lvm.models.supervised_vae import SupervisedVAE
from pyro_lvm.models.vae import VAE
from pyro_lvm.models.vaeac import VAEAC

__all__ = [
    "ADGM",
    "SDGM",
    "VAE",
    "VAEAC",
    "BayesianConvNet",
    "BayesianLSTM",
    "BayesianLinearRegression",
    "BayesianLogisticRegression",
    "BayesianMLP",
    "DendriticCalcium",
    "FactorAnalysis",
    "GaussianMixture",
    "HiddenMarkov",
    "HierarchicalVAE",
    "IdentifiableVAE",
    "LinearCalcium",
    "LinearGaussianSSM",
    "NormalizingFlow",
    "PhysiologicalCalcium",
    "ProbabilisticPCA",
    "SaturatingCalcium",
    "SupervisedVAE",
]
