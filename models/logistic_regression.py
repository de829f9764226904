"""Bayesian logistic regression: evidence and moments by quadrature, and a Laplace fit."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.models.regression import RegressionModel, linear_predictor
from pyro_lvm.nn import check_positive, data_plate, diagonal_normal

__all__ = ["BayesianLogisticRegression"]

_NODES = {1: 1001, 2: 241, 3: 81}  # of each weight, by their number
_REACH = 4.0  # sinh(4) = 27 standard deviations of the Laplace fit to either side
_NEWTON_STEPS = 30
_HALVINGS = 12  # of a Newton step that goes too far
_CHUNK = 2**22  # terms of the likelihood at a time


class BayesianLogisticRegression(RegressionModel):
    r"""Logistic regression with Normal weights.

    .. math:: w \sim N(0, s^2 I), \quad y_i \mid x_i, w \sim
        \mathrm{Bernoulli}(\sigma(x_i^\top w))

    Called as ``model(x, y)``. The latent site "weights" is outside the plate "data" in which
    "y" is observed: all data share one log-weight, and a bound is one number, at most
    ``log_evidence(x, y)`` in expectation.

    Integrals over up to three weights are trapezoid sums over a grid around the posterior's
    mode, in units of its curvature there, with steps that widen like a hyperbolic sine. In
    float64 ``log_evidence`` is right to 1e-9 nats for standardised covariates and s up to 10,
    separable data included (1e-5 at s = 30).

    Args:
        in_features: number of covariates, D; a column of ones among them is an intercept.
        prior_scale: s.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1, a scale not above 0; a grid over more than three weights.
        DataError: ``x`` has another number of features, or no rows; ``y`` another shape.

    Example:
        >>> model = BayesianLogisticRegression(in_features=1)
        >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 0.0])
        >>> model.log_evidence(x, y)
        tensor(-1.5769)
    """

    def __init__(
        self, in_features: int = 3, *, prior_scale: float = 1.0, num_data: int | None = None
    ) -> None:
        super().__init__(in_features, num_data)
        self.prior_scale = check_positive("prior_scale", prior_scale, "1.0")

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Site "weights", then "y" inside plate "data".

        Args:
            x: ``(B, D)`` covariates.
            y: ``(B,)`` outcomes in {0, 1}; None draws them from the prior predictive.
        """
        x = self._covariates(x)
        y = None if y is None else self._pairs(x, y)[1]
        weights = pyro.sample("weights", self._prior())
        with data_plate(len(x), self.num_data, like=x):
            drawn: Tensor = pyro.sample("y", _outcome(x, weights), obs=y)
        return drawn

    def log_evidence(self, x: Tensor, y: Tensor) -> Tensor:  # ()
        """log p(y | x) of all data together, in nats."""
        return self._grid(x, y)[1].logsumexp(0)

    def moments(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(D,)`` and covariance ``(D, D)`` of the weights given all of the data."""
        points, log_masses = self._grid(x, y)
        masses = log_masses.softmax(0)
        mean = masses @ points
        return mean, (masses * (points - mean).T) @ (points - mean)

    def laplace(self, x: Tensor, y: Tensor) -> dist.MultivariateNormal:
        """The Normal with the posterior's mode and its curvature there, for any D.

        By Newton's method; a step that would lower the density is halved.
        """
        x, y = self._pairs(x, y)
        halves = 0.5 ** torch.arange(_HALVINGS + 1).to(x)
        mode = self._origin
        for _ in range(_NEWTON_STEPS):
            slope = x.T @ (y - (x @ mode).sigmoid()) - mode / self.prior_scale**2
            step = torch.linalg.solve(self._curvature(x, mode), slope)
            tried = mode + halves[:, None] * step
            mode = tried[self._log_joint(tried, x, y).argmax()]
        return dist.MultivariateNormal(mode, precision_matrix=self._curvature(x, mode))

    def _grid(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (G, D), (G,)
        """Points of a trapezoid rule, and log of joint density times volume at each."""
        if self.in_features not in _NODES:
            hint = "Use laplace(x, y) as a guide, and a bound."
            expected = f"at most {len(_NODES)} weights for a grid"
            raise ProgramError(explain("in_features", expected, str(self.in_features), hint))
        fit = self.laplace(x, y)
        x, y = self._pairs(x, y)
        even = torch.linspace(-_REACH, _REACH, _NODES[self.in_features]).to(x)
        spacing = (even[1] - even[0]) * even.cosh()
        units = torch.cartesian_prod(*[even.sinh()] * self.in_features)
        volumes = torch.cartesian_prod(*[spacing] * self.in_features)
        units, volumes = (t.reshape(-1, self.in_features) for t in (units, volumes))
        points = fit.mean + units @ fit.scale_tril.T
        chunks = points.split(max(1, _CHUNK // len(x)))
        log_joint = torch.cat([self._log_joint(chunk, x, y) for chunk in chunks])
        return points, log_joint + volumes.log().sum(-1) + fit.scale_tril.logdet()

    def _prior(self) -> dist.TorchDistribution:
        return diagonal_normal(self._origin, self.prior_scale)

    def _log_joint(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:  # (G,)
        """log p(y, w | x) at each row of ``weights`` ``(G, D)``."""
        likelihood = _outcome(x, weights[:, None]).log_prob(y).sum(-1)
        joint: Tensor = likelihood + self._prior().log_prob(weights)
        return joint

    def _curvature(self, x: Tensor, weights: Tensor) -> Tensor:  # (D, D)
        """Minus the second derivative of the log-density of the posterior."""
        p = (x @ weights).sigmoid()
        prior = torch.eye(len(weights)).to(x) / self.prior_scale**2
        return x.T @ (x * (p * (1 - p))[:, None]) + prior


def _outcome(x: Tensor, weights: Tensor) -> dist.TorchDistribution:
    outcome: dist.TorchDistribution = dist.Bernoulli(logits=linear_predictor(x, weights))
    return outcome
