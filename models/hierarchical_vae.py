"""Hierarchical variational autoencoder, whose top-down conditionals a guide can share."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions.likelihoods import Likelihood, as_likelihood
from pyro_lvm.distributions.start import start_at_mean
from pyro_lvm.nn import (
    MLP,
    Dense,
    Hidden,
    TopDown,
    as_batch,
    check_num_data,
    check_size,
    data_plate,
    diagonal_normal,
    hidden_by_layer,
    named_sizes,
)

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(PyroModule):
    r"""Deep latent Gaussian model of L layers of leaky rectifiers, for ladder guides.

    .. math:: z_L \sim N(0, I), \quad z_l \mid z_{l+1} \sim N(m_l(z_{l+1}),
        \mathrm{diag}(s_l(z_{l+1})^2)), \quad x \mid z_1 \sim p(\cdot; f(z_1))

    One layer has the latent site "z"; several have "z1" (next to the data), "z2", ... The
    observed site is "x". The conditionals are :attr:`top_down`, which a
    :class:`~pyro_lvm.guides.LadderNormal` reads; a bottom-up
    :class:`~pyro_lvm.guides.HierarchicalNormal` serves it too.
    :func:`~pyro_lvm.diagnostics.collapse_report` shows which layers are in use.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther (2016), *Ladder variational autoencoders*,
        arXiv:1602.02282, eqs. 1-3.

    Args:
        in_features: size of a datum, D.
        latent_features: sizes of the latent layers, from the data upwards.
        hidden: hidden sizes of every network, or one tuple of them for each layer.
        likelihood: "bernoulli", "gaussian", "negative_binomial" or "poisson", or a
            :class:`~pyro_lvm.distributions.Likelihood` of D columns.
        noise: scale of "gaussian": "feature", one parameter a feature, or "network", a second
            output of the decoder.
        batch_norm: normalise each hidden layer over the batch; see
            :class:`~pyro_lvm.nn.BatchNorm` on bounds in training.
        data_mean: ``(D,)`` mean of the training data, for the start of the output bias.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood or
            ``data_mean`` of another size.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = HierarchicalVAE(in_features=64, latent_features=(8, 4, 2), hidden=(20,))
        >>> x = model(size=5)
        >>> x.shape, model.decode(torch.zeros(3, 5, 8)).batch_shape
        (torch.Size([5, 64]), torch.Size([3, 5]))
    """

    _origin: Tensor

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int | Sequence[int] = (16, 8, 4),
        hidden: Hidden = (200, 200),
        likelihood: str | Likelihood = "bernoulli",
        *,
        noise: str = "feature",
        batch_norm: bool = False,
        data_mean: Tensor | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = named_sizes(latent_features)
        sizes = list(self.latent_features.values())
        self.num_data = check_num_data(num_data)
        self.likelihood = as_likelihood(likelihood, in_features, noise)
        first, *others = hidden_by_layer(hidden, len(sizes))
        self.top_down = TopDown(sizes, others, batch_norm=batch_norm)
        dense = Dense(sizes[0], first, batch_norm=batch_norm)
        outputs = MLP(dense.out_features, self.likelihood.num_outputs, hidden=())
        self.decoder = nn.Sequential(dense, outputs)
        if data_mean is not None:
            start_at_mean(outputs, self.likelihood, data_mean, in_features)
        self.register_buffer("_origin", torch.zeros(sizes[-1]), persistent=False)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """The latent sites, top first, and "x", inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data from the prior predictive.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self._origin)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            z = pyro.sample(self.top_down.top, diagonal_normal(self._origin, 1.0))
            for name, layer in self.top_down.downwards():
                z = pyro.sample(name, layer(z))
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given the lowest latent ``(*, latent)``: batch ``(*,)``."""
        return self.likelihood.row(self.decoder(z))
