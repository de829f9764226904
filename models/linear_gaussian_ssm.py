"""Linear-Gaussian state-space model, with its exact evidence, filter and posterior."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.distributions.linear_gaussian_chain import LinearGaussianChain
from pyro_lvm.models.kalman import Filtered, kalman_filter, smoother, triangular_root
from pyro_lvm.models.sequences import as_sequences
from pyro_lvm.nn import check_num_data, check_size, data_plate, named_sizes, widen

__all__ = ["LinearGaussianSSM"]


class LinearGaussianSSM(PyroModule):
    r"""Sequences of data, each step a noisy linear map of a state that moves linearly.

    .. math:: z_1 \sim N(m, S_0 S_0^\top), \quad
        z_t \mid z_{t-1} \sim N(A z_{t-1} + b, S S^\top), \quad
        x_t \mid z_t \sim N(C z_t + d, \mathrm{diag}(\sigma^2))

    All states of a sequence are one site "z" of event shape ``(T, L)``, all data one site "x"
    of event shape ``(T, D)``. Sequences of a batch have one length, and batches may differ in
    it. ``log_evidence(x)``, ``filter(x)`` and ``posterior(x)`` are exact and differentiable.
    Parameters: ``initial_mean`` m, ``initial_scale_tril`` S_0, ``transition`` A,
    ``transition_bias`` b, ``transition_scale_tril`` S, ``loading`` C, ``mean`` d,
    ``noise_scale`` sigma.

    References:
        Kalman (1960), *A new approach to linear filtering and prediction problems*, J. Basic
        Eng. 82.
        Rauch, Tung, Striebel (1965), *Maximum likelihood estimates of linear dynamic systems*,
        AIAA J. 3.
        Bishop (2006), *Pattern recognition and machine learning*, section 13.3.

    Args:
        in_features: size of a step of the data, D.
        latent_features: size of a state, L.
        num_steps: T of the sequences that are drawn where there are no data.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1.
        DataError: ``x`` has another shape, or no rows.

    Example:
        >>> model = LinearGaussianSSM(in_features=3, latent_features=2, num_steps=7)
        >>> x = model(size=4).detach()
        >>> x.shape, model.log_evidence(x).shape, model.posterior(x).mean.shape
        (torch.Size([4, 7, 3]), torch.Size([4]), torch.Size([4, 7, 2]))
    """

    initial_scale_tril: Tensor
    transition_scale_tril: Tensor
    noise_scale: Tensor

    def __init__(
        self,
        in_features: int = 8,
        latent_features: int = 4,
        *,
        num_steps: int = 16,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = named_sizes(latent_features)
        self.num_steps = check_size("num_steps", num_steps)
        self.num_data = check_num_data(num_data)
        identity = torch.eye(latent_features)
        self.initial_mean = nn.Parameter(torch.zeros(latent_features))
        self.transition = nn.Parameter(0.9 * identity)
        self.transition_bias = nn.Parameter(torch.zeros(latent_features))
        self.loading = nn.Parameter(torch.randn(in_features, latent_features) * 0.1)
        self.mean = nn.Parameter(torch.zeros(in_features))
        tril, positive = constraints.lower_cholesky, constraints.positive
        self.initial_scale_tril = PyroParam(identity, tril)  # type: ignore[assignment]
        self.transition_scale_tril = PyroParam(identity, tril)  # type: ignore[assignment]
        self.noise_scale = PyroParam(torch.ones(in_features), positive)  # type: ignore[assignment]

    def forward(self, x: Any = None, *, size: int = 1) -> Tensor:
        """Sites "z" and "x" inside plate "data".

        Args:
            x: ``(B, T, in_features)`` data; None draws ``size`` sequences from the prior
                predictive.
            size: number of sequences to draw where ``x`` is None.
        """
        x = None if x is None else self._sequences(x)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            z = pyro.sample("z", self.prior(self.num_steps if x is None else x.shape[1]))
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def exact_guide(self, x: Any) -> dict[str, Tensor]:
        """The guide that is the posterior: site "z", ``(B, T, L)``, inside plate "data"."""
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=self.mean):
            return {"z": pyro.sample("z", posterior)}

    def prior(self, num_steps: int) -> LinearGaussianChain:
        """The distribution of the states of one sequence, event ``(num_steps, L)``."""
        moves = num_steps - 1
        offset = [self.initial_mean[None], self.transition_bias.expand(moves, -1)]
        tril = [self.initial_scale_tril[None], self.transition_scale_tril.expand(moves, -1, -1)]
        transition = self.transition.expand(moves, -1, -1)
        return LinearGaussianChain(torch.cat(offset), transition, torch.cat(tril))

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given ``z`` of shape ``(*, T, L)``: batch ``(*,)``."""
        loc = widen(z @ self.loading.T) + self.mean
        sequence: dist.TorchDistribution = dist.Normal(loc, self.noise_scale).to_event(2)
        return sequence

    def log_evidence(self, x: Any) -> Tensor:  # (B,)
        """The exact log p(x) of each sequence, in nats per datum."""
        volume = self.noise_scale.log().sum()
        return (self._filtered(self._sequences(x)).log_prob - volume).sum(-1)

    def filter(self, x: Any) -> dist.MultivariateNormal:
        """The exact distribution of each state given the data up to it, batch ``(B, T)``."""
        filtered = self._filtered(self._sequences(x))
        return dist.MultivariateNormal(filtered.mean, scale_tril=triangular_root(filtered.root))

    def posterior(self, x: Any) -> LinearGaussianChain:
        """The exact joint distribution of the states given all data, batch ``(B,)``.

        Its ``mean`` ``(B, T, L)`` and ``covariance_matrix`` ``(T, L, L)`` are the smoothed ones.
        """
        x = self._sequences(x)
        return smoother(self.prior(x.shape[1]), self._filtered(x))

    def _sequences(self, x: Any) -> Tensor:
        return as_sequences(x, (self.in_features,), like=self.mean)

    def _filtered(self, x: Tensor) -> Filtered:
        seen = self.loading / self.noise_scale.unsqueeze(-1)
        return kalman_filter(self.prior(x.shape[1]), seen, (x - self.mean) / self.noise_scale)
