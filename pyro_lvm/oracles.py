"""Exact answers to hold estimators against: a conjugate model, and quadrature of any bound."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["LinearGaussian", "expected_bound", "normal_grid"]


@dataclass(frozen=True)
class LinearGaussian:
    r"""Factor model with every answer known: :math:`z \sim N(0, I)`, :math:`x \mid z \sim
    N(\Lambda z, \mathrm{diag}(\sigma^2))`.

    Args:
        loading: :math:`\Lambda`, shape ``(features, latents)``.
        noise: :math:`\sigma`, shape ``(features,)``.

    Example:
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.ones(2))
        >>> x = torch.zeros(3, 2)
        >>> oracle.log_evidence(x)
        tensor([-2.3872, -2.3872, -2.3872])
        >>> oracle.elbo(x, oracle.posterior(x))
        tensor([-2.3872, -2.3872, -2.3872])
    """

    loading: Tensor
    noise: Tensor

    def model(self, x: Tensor, size: int | None = None, subsample: Tensor | None = None) -> None:
        """The generative program; ``subsample`` indexes the rows of ``x`` in use."""
        with pyro.plate("data", size or len(x), subsample=subsample) as index:
            batch = x if subsample is None else x[index]
            latents = self.loading.shape[1]
            z = pyro.sample("z", dist.Normal(self.loading.new_zeros(latents), 1.0).to_event(1))
            loc = z @ self.loading.T
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=batch)

    def exact_guide(
        self, x: Tensor, size: int | None = None, subsample: Tensor | None = None
    ) -> None:
        """The guide that is the posterior: every bound is then log p(x), at any draw."""
        with pyro.plate("data", size or len(x), subsample=subsample) as index:
            pyro.sample("z", self.posterior(x if subsample is None else x[index]))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """The distribution of z given each row of ``x``, batch ``(N,)``."""
        scaled = self.loading / self.noise[:, None] ** 2
        identity = torch.eye(self.loading.shape[1], dtype=x.dtype, device=x.device)
        precision = identity + self.loading.T @ scaled
        covariance = torch.linalg.inv(precision)
        return dist.MultivariateNormal(x @ scaled @ covariance, covariance)

    def log_evidence(self, x: Tensor) -> Tensor:  # (N,)
        """The exact log p(x) of each row, nats."""
        covariance = self.loading @ self.loading.T + torch.diag(self.noise**2)
        evidence: Tensor = dist.MultivariateNormal(torch.zeros_like(x[0]), covariance).log_prob(x)
        return evidence

    def elbo(self, x: Tensor, q: dist.MultivariateNormal) -> Tensor:  # (N,)
        """The exact ELBO of each row under the Gaussian guide ``q``, nats."""
        loc = q.loc @ self.loading.T
        likelihood = dist.Normal(loc, self.noise).log_prob(x).sum(-1)
        spread = self.loading.T @ (self.loading / self.noise[:, None] ** 2)
        likelihood = likelihood - 0.5 * (spread * q.covariance_matrix).sum((-2, -1))
        identity = torch.eye(q.loc.shape[-1], dtype=x.dtype, device=x.device)
        prior = dist.MultivariateNormal(torch.zeros_like(q.loc), identity)
        exact: Tensor = likelihood - torch.distributions.kl_divergence(q, prior)
        return exact


def normal_grid(nodes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Points of a standard normal and their probability masses, by the trapezoid rule.

    Example:
        >>> points, masses = normal_grid(60)
        >>> round(float((masses * points**4).sum()), 9)
        3.0
    """
    points = torch.linspace(-9.0, 9.0, nodes, dtype=dtype)
    masses = torch.exp(-0.5 * points**2)
    return points, masses / masses.sum()


def expected_bound(
    log_weights: Tensor, masses: Tensor, num_particles: int, alpha: float = 0.0
) -> Tensor:
    r"""The exact mean of a K-particle bound of one datum, in nats, without Monte Carlo.

    With :math:`\phi(t) = \mathbb E_q e^{-t w}`, from :math:`\log a = \int_0^\infty
    (e^{-t} - e^{-at})/t \, dt`,

    .. math:: \mathbb E \log \sum_k w_k =
        \int_{-\infty}^\infty \bigl(e^{-e^u} - \phi(e^u)^K\bigr) \, du .

    Differentiable in whatever ``log_weights`` and ``masses`` depend on, so it gives exact
    expected gradients too.

    Args:
        log_weights: ``(nodes,)`` log w at each value of all latent variables.
        masses: ``(nodes,)`` probability of each under the guide, summing to one.
        num_particles: K.
        alpha: order of the Rényi bound; 0 is IWAE's, 1 the ELBO.

    Example:
        Weights 1 and 3 with equal probability; two draws: log of the mean of the two.

        >>> log_weights = torch.tensor([1.0, 3.0], dtype=torch.float64).log()
        >>> masses = torch.tensor([0.5, 0.5], dtype=torch.float64)
        >>> value = expected_bound(log_weights, masses, num_particles=2)
        >>> exact = (torch.tensor(2.0).log() * 2 + torch.tensor(3.0).log()) / 4
        >>> round(float(value), 5) == round(float(exact), 5)
        True
    """
    if alpha == 1.0:
        return (masses * log_weights).sum()
    power = 1.0 - alpha
    shift = (power * log_weights.detach()).logsumexp(0)  # keeps the integrand near u = 0
    u = torch.linspace(-45.0, 75.0, 1201, dtype=log_weights.dtype, device=log_weights.device)
    weights = torch.exp(power * log_weights - shift)
    phi = (masses * torch.exp(-u.exp()[:, None] * weights)).sum(-1)
    integrand = torch.exp(-u.exp()) - phi**num_particles
    log_sum = torch.trapezoid(integrand, u) + shift
    count = torch.tensor(float(num_particles), dtype=log_weights.dtype)
    return (log_sum - count.log()) / power
