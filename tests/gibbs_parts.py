"""What the tests of variational Gibbs inference share: factor analysis whose answers are known."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.guides import GibbsConditionals, GibbsGuide
from pyro_lvm.models import FactorAnalysis

D = 4


def factor_analysis() -> FactorAnalysis:
    model = FactorAnalysis(D, 2)
    with torch.no_grad():
        model.loading.copy_(torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.5, 1.0], [0.3, -0.7]]))
        model.mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
        model.noise_scale = torch.tensor([0.6, 0.5, 0.8, 0.7])
    return model


def marginal(model: FactorAnalysis) -> dist.MultivariateNormal:
    covariance = model.loading @ model.loading.T + model.noise_scale.square().diag()
    return dist.MultivariateNormal(model.mean, covariance)


def exact_guide(model: FactorAnalysis) -> GibbsGuide:
    """Its conditionals are those of the model: Normals whose means are linear in the others."""
    conditionals = GibbsConditionals(D, hidden=())
    with torch.no_grad():
        normal = marginal(model)
        precision = normal.precision_matrix
        slope = -precision / precision.diagonal()[:, None]
        slope.fill_diagonal_(0.0)
        scale = precision.diagonal() ** -0.5
        conditionals.head.weight.zero_()
        conditionals.head.weight[:, :D, 0] = slope
        conditionals.head.bias[:, 0] = normal.loc - slope @ normal.loc
        conditionals.head.bias[:, 1] = (scale - 1e-6).expm1().log()
    return GibbsGuide(conditionals)


def given_observed(model: FactorAnalysis, row: Tensor) -> dist.MultivariateNormal:
    """Of the missing entries of ``row`` ``(D,)``."""
    normal, missing = marginal(model), row.isnan()
    within = normal.covariance_matrix[~missing][:, ~missing]
    across = normal.covariance_matrix[missing][:, ~missing]
    gain = torch.linalg.solve(within, across.T).T
    loc = normal.loc[missing] + gain @ (row - normal.loc)[~missing]
    return dist.MultivariateNormal(
        loc, normal.covariance_matrix[missing][:, missing] - gain @ across.T
    )


def log_p_observed(model: FactorAnalysis, row: Tensor) -> Tensor:
    normal, seen = marginal(model), ~row.isnan()
    part = normal.covariance_matrix[seen][:, seen]
    score: Tensor = dist.MultivariateNormal(normal.loc[seen], part).log_prob(row[seen])
    return score
