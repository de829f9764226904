"""Identifiable VAE: the prior of the latents depends on something observed beside the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions.likelihoods import Likelihood, as_likelihood
from pyro_lvm.nn import (
    MLP,
    as_batch,
    check_num_data,
    check_size,
    data_plate,
    diagonal_normal,
    positive_scale,
)

__all__ = ["IdentifiableVAE"]


class IdentifiableVAE(PyroModule):
    r"""VAE with a prior given covariates u, such as a time segment, a class, or a time.

    .. math:: z \mid u \sim N(0, \mathrm{diag}(s(u)^2)), \qquad x \mid z \sim p(\cdot; f(z))

    Where u moves the variances of the latents enough, and f is injective, the latents are
    known up to their order and a function of each; a plain VAE's are known up to any
    transformation that leaves its prior as it is.
    :func:`~pyro_lvm.diagnostics.mean_correlation` compares them with true ones,
    :func:`~pyro_lvm.models.segment_sources.simulate` makes data that have such. Sites "z" and
    "x"; the guide is called ``guide(x, u)``, as
    :class:`~pyro_lvm.guides.StructuredGuide` can be.

    References:
        Khemakhem, Kingma, Monti, Hyvärinen (2020), *Variational autoencoders and nonlinear
        ICA: a unifying framework*, arXiv:1907.04809, eqs. 6 to 8 and theorem 1.

    Args:
        in_features: size of a datum, D.
        covariate_features: size of u, U; a class or segment is its indicator.
        latent_features: size of z.
        hidden: hidden sizes of both networks.
        likelihood: "gaussian", "bernoulli", "negative_binomial" or "poisson", or a
            :class:`~pyro_lvm.distributions.Likelihood` of D columns.
        noise: scale of "gaussian": "feature", one parameter a feature, or "network", a second
            output of the decoder.
        prior: from u ``(*, U)`` to a distribution of event shape ``(latent,)``, in place of
            the one above, such as ``ConditionalNormal(U, latent)``, whose means depend on u
            too.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood of another size.
        DataError: ``x`` or ``u`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> model = IdentifiableVAE(in_features=6, covariate_features=4, latent_features=3)
        >>> u = torch.eye(4)[torch.tensor([0, 0, 3])]
        >>> model(None, u).shape
        torch.Size([3, 6])
    """

    def __init__(
        self,
        in_features: int = 64,
        covariate_features: int = 10,
        latent_features: int = 16,
        hidden: Sequence[int] = (100, 100),
        likelihood: str | Likelihood = "gaussian",
        *,
        noise: str = "feature",
        prior: nn.Module | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.covariate_features = check_size("covariate_features", covariate_features)
        self.latent_features = check_size("latent_features", latent_features)
        self.num_data = check_num_data(num_data)
        self.likelihood = as_likelihood(likelihood, in_features, noise)
        self.prior = prior or _Centred(covariate_features, latent_features, hidden)
        self.decoder = MLP(latent_features, self.likelihood.num_outputs, hidden, nn.LeakyReLU)

    def forward(self, x: Any, u: Any) -> Tensor:
        """Sites "z" and "x" inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws a datum for each row of ``u``.
            u: ``(B, covariate_features)``.
        """
        u = as_batch(u, self.covariate_features, like=self.decoder.bias)
        x = None if x is None else as_batch(x, self.in_features, like=u)
        with data_plate(len(u), None if x is None else self.num_data, like=u):
            z = pyro.sample("z", self.prior(u))
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given ``z`` ``(*, latent)``: batch ``(*,)``."""
        return self.likelihood.row(self.decoder(z))


class _Centred(nn.Module):
    """Normals of mean 0 whose scales a network computes."""

    def __init__(self, in_features: int, out_features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.network = MLP(in_features, out_features, hidden, nn.LeakyReLU)

    def forward(self, u: Tensor) -> dist.TorchDistribution:
        scale = positive_scale(self.network(u))
        return diagonal_normal(scale.new_zeros(()), scale)
