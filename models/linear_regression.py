"""Bayesian linear regression with a conjugate prior: evidence and posterior in closed form."""

from __future__ import annotations

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.models.regression import RegressionModel, linear_predictor
from pyro_lvm.nn import check_positive, data_plate

__all__ = ["BayesianLinearRegression", "NormalGamma"]


class NormalGamma(NamedTuple):
    r"""Joint distribution of the noise's precision and the weights given it.

    Attributes:
        precision: a Gamma distribution, or a Delta where the noise is known.
        loc: ``(D,)`` mean of the weights.
        unit_tril: ``(D, D)``, S: the weights' covariance is :math:`S S^\top` / precision.
    """

    precision: dist.TorchDistribution
    loc: Tensor
    unit_tril: Tensor

    def weights(self, precision: Tensor) -> dist.MultivariateNormal:
        """The weights given ``precision`` ``(*,)``: batch ``(*,)``, event ``(D,)``."""
        scale = precision[..., None, None] ** -0.5
        return dist.MultivariateNormal(self.loc, scale_tril=scale * self.unit_tril)


class BayesianLinearRegression(RegressionModel):
    r"""Linear regression: Normal weights, Gamma precision of the noise, or known noise.

    .. math:: \tau \sim \mathrm{Gamma}(a, b), \quad
        w \mid \tau \sim N(0, (\tau \lambda)^{-1} I), \quad
        y_i \mid x_i, w, \tau \sim N(x_i^\top w, \tau^{-1})

    Called as ``model(x, y)``. Latent sites "precision" (unless the noise is known) and
    "weights", outside the plate "data" in which "y" is observed: all data share one log-weight,
    and a bound is one number, at most ``log_evidence(x, y)`` in expectation.

    References:
        Bishop (2006), *Pattern recognition and machine learning*, section 3.5 and exercises
        3.12, 3.13 and 3.23.

    Args:
        in_features: number of covariates, D; a column of ones among them is an intercept.
        prior_precision: :math:`\lambda`, of the weights in units of the noise's precision.
        concentration: a.
        rate: b.
        noise_scale: standard deviation of the noise, if known: :math:`\tau` is then fixed.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1, another argument not above 0.
        DataError: ``x`` has another number of features, or no rows; ``y`` another shape.

    Example:
        >>> from pyro_lvm.objectives import IWAE
        >>> model = BayesianLinearRegression(in_features=2).double()
        >>> x = torch.randn(20, 2)
        >>> y = x @ torch.tensor([1.0, -1.0]) + 0.1 * torch.randn(20)
        >>> bound = IWAE(num_particles=3).bound(model, model.exact_guide, x, y)
        >>> torch.allclose(bound, model.log_evidence(x, y))
        True
    """

    def __init__(
        self,
        in_features: int = 3,
        *,
        prior_precision: float = 1.0,
        concentration: float = 1.0,
        rate: float = 1.0,
        noise_scale: float | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(in_features, num_data)
        self.prior_precision = check_positive("prior_precision", prior_precision, "1.0")
        self.concentration = check_positive("concentration", concentration, "1.0")
        self.rate = check_positive("rate", rate, "1.0")
        self.noise_scale = noise_scale
        if noise_scale is not None:
            check_positive("noise_scale", noise_scale, "1.0")

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The latent sites, then "y" inside plate "data".

        Args:
            x: ``(B, D)`` covariates.
            y: ``(B,)`` outcomes; None draws them from the prior predictive.
        """
        x = self._covariates(x)
        y = None if y is None else self._pairs(x, y)[1]
        precision, weights = _draw(self._prior())
        with data_plate(len(x), self.num_data, like=x):
            drawn: Tensor = pyro.sample("y", _noisy(x, weights, precision), obs=y)
        return drawn

    def posterior(self, x: Tensor, y: Tensor) -> NormalGamma:
        """The exact posterior of precision and weights given all of ``x`` and ``y``."""
        x, y = self._pairs(x, y)
        prior = self.prior_precision
        inner = prior * torch.eye(self.in_features).to(x) + x.T @ x
        tril = dist.MultivariateNormal(self._origin, precision_matrix=inner).scale_tril
        loc = tril @ (tril.T @ (x.T @ y))
        misfit = (y - x @ loc).square().sum() + prior * loc.square().sum()
        return NormalGamma(self._precision(len(y), misfit), loc, tril)

    def exact_guide(self, x: Tensor, y: Tensor) -> None:
        """The posterior as a guide: every bound is then ``log_evidence``, at any draw."""
        _draw(self.posterior(x, y))

    def log_evidence(self, x: Tensor, y: Tensor) -> Tensor:  # ()
        """The exact log p(y | x) of all data together, in nats.

        Bayes' rule at the posterior's means: prior times likelihood over posterior.
        """
        x, y = self._pairs(x, y)
        prior, posterior = self._prior(), self.posterior(x, y)
        precision, weights = posterior.precision.mean, posterior.loc
        likelihood: Tensor = _noisy(x, weights, precision).log_prob(y).sum()
        joint = likelihood + _log_prob(prior, precision, weights)
        return joint - _log_prob(posterior, precision, weights)

    def predict(self, x_new: Tensor, x: Tensor, y: Tensor) -> dist.TorchDistribution:
        """Outcomes at ``x_new`` ``(M, D)`` given the data: batch ``(M,)``, each on its own.

        Student's t, or Normal where the noise is known.
        """
        posterior, x_new = self.posterior(x, y), self._covariates(x_new)
        loc = x_new @ posterior.loc
        spread = 1 + (x_new @ posterior.unit_tril).square().sum(-1)
        scale = (spread / posterior.precision.mean).sqrt()
        if self.noise_scale is not None:
            return dist.Normal(loc, scale)
        freedom = 2 * self.concentration + len(y)
        student: dist.TorchDistribution = dist.StudentT(freedom, loc, scale)
        return student

    def _prior(self) -> NormalGamma:
        tril = self.prior_precision**-0.5 * torch.eye(self.in_features).to(self._origin)
        return NormalGamma(self._precision(0, self._origin.new_zeros(())), self._origin, tril)

    def _precision(self, count: int, misfit: Tensor) -> dist.TorchDistribution:
        """Given ``count`` residuals whose squares, the prior's among them, sum to ``misfit``."""
        if self.noise_scale is not None:
            return dist.Delta(misfit.new_tensor(self.noise_scale**-2))
        concentration = misfit.new_tensor(self.concentration + count / 2)
        return dist.Gamma(concentration, self.rate + misfit / 2)


def _draw(joint: NormalGamma) -> tuple[Tensor, Tensor]:
    precision = joint.precision.mean
    if not isinstance(joint.precision, dist.Delta):
        precision = pyro.sample("precision", joint.precision)
    return precision, pyro.sample("weights", joint.weights(precision))


def _noisy(x: Tensor, weights: Tensor, precision: Tensor) -> dist.TorchDistribution:
    return dist.Normal(linear_predictor(x, weights), precision**-0.5)


def _log_prob(joint: NormalGamma, precision: Tensor, weights: Tensor) -> Tensor:
    log_prob: Tensor = joint.weights(precision).log_prob(weights)
    return log_prob + joint.precision.log_prob(precision)
