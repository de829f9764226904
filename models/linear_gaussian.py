"""What factor analysis and probabilistic PCA share: a linear map of a Normal, plus noise."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.nn import as_batch, check_num_data, check_size, data_plate, diagonal_normal, widen

__all__ = ["LinearGaussianModel"]


class LinearGaussianModel(PyroModule):
    r"""Base of :math:`z \sim N(0, I)`, :math:`x \mid z \sim N(\Lambda z + \mu, \Psi)`.

    Args:
        in_features: size of a datum, D.
        latent_features: size of ``z``, L.
        noise_features: D noise scales, or 1 that all features share.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.
    """

    noise_scale: Tensor

    def __init__(
        self, in_features: int, latent_features: int, noise_features: int, num_data: int | None
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = {"z": check_size("latent_features", latent_features)}
        self.num_data = check_num_data(num_data)
        self.loading = nn.Parameter(torch.randn(in_features, latent_features) * 0.1)
        self.mean = nn.Parameter(torch.zeros(in_features))
        self.noise_scale = PyroParam(  # type: ignore[assignment]
            torch.ones(noise_features), constraint=constraints.positive
        )

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Sites "z" and "x" inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data from the prior predictive.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self.mean)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            z = pyro.sample("z", self._prior())
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given ``z`` of shape ``(*, L)``: batch ``(*,)``."""
        loc = widen(z @ self.loading.T) + self.mean
        return diagonal_normal(loc, self.noise_scale)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        r"""The exact distribution of ``z`` given each row of ``x``, batch ``(B,)``.

        Its precision is :math:`I + \Lambda^\top \Psi^{-1} \Lambda`: one Cholesky
        decomposition of size L, whatever B and D.
        """
        x = as_batch(x, self.in_features, like=self.mean)
        scaled = self.loading / self.noise_scale[:, None] ** 2
        precision = torch.eye(scaled.shape[1]).to(scaled) + self.loading.T @ scaled
        precision = (precision + precision.mT) / 2  # rounding leaves it a little asymmetric
        origin = torch.zeros_like(precision[0])
        tril = dist.MultivariateNormal(origin, precision_matrix=precision).scale_tril
        return dist.MultivariateNormal((x - self.mean) @ scaled @ tril @ tril.T, scale_tril=tril)

    def log_evidence(self, x: Tensor) -> Tensor:  # (B,)
        r"""The exact log p(x) of each row, in nats per datum.

        Bayes' rule at the posterior mean m, :math:`\log p(x \mid m) + \log p(m) -
        \log p(m \mid x)`: no difference of large quadratic forms, unlike the matrix
        inversion lemma applied to the covariance of ``x``.
        """
        posterior = self.posterior(x)
        loc = posterior.loc
        x = as_batch(x, self.in_features, like=self.mean)
        joint = self.decode(loc).log_prob(x) + self._prior().log_prob(loc)
        evidence: Tensor = joint - posterior.log_prob(loc)
        return evidence

    def _prior(self) -> dist.TorchDistribution:
        return diagonal_normal(torch.zeros_like(self.loading[0]), 1.0)
