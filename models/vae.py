"""Variational autoencoder: the generative half, with one or several stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions.likelihoods import Likelihood, as_likelihood
from pyro_lvm.distributions.start import start_at_mean
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import (
    MLP,
    ConditionalNormal,
    Hidden,
    as_batch,
    check_num_data,
    check_size,
    data_plate,
    diagonal_normal,
    hidden_by_layer,
    named_sizes,
)

__all__ = ["VAE"]


class VAE(PyroModule):
    r"""Deep latent Gaussian model: networks from the top latent layer down to the data.

    .. math:: z_L \sim p(z_L), \quad z_l \mid z_{l+1} \sim N(m_l(z_{l+1}),
        \mathrm{diag}(s_l(z_{l+1})^2)), \quad x \mid z_1 \sim p(\cdot; f(z_1))

    One layer has the latent site "z"; several have "z1" (next to the data), "z2", ... The
    observed site is "x". Every feature dim is an event dim.

    References:
        Kingma, Welling (2014), *Auto-encoding variational Bayes*, arXiv:1312.6114.
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5 for two layers and for ``data_mean``.

    Args:
        in_features: size of a datum, D.
        latent_features: size of the latent layer, or sizes of several, from the data upwards.
        hidden: hidden sizes of every network, or one tuple of them for each layer.
        likelihood: "bernoulli", "gaussian", "negative_binomial" or "poisson", or a
            :class:`~pyro_lvm.distributions.Likelihood` of D columns, such as
            ``CategoricalLikelihood(D, num_classes=3)`` or a ``MixedLikelihood``.
        noise: scale of "gaussian": "feature", one parameter a feature, or "network", a
            second output of the decoder.
        decoder: from ``(*, latent)`` to ``(*, likelihood.num_outputs)``: D, or ``2 D`` with
            ``noise="network"``; it must take any number of left dims. An MLP if left out.
        prior: of the top layer: a module whose ``forward()`` gives a distribution of event
            shape ``(latent,)``, such as ``ConditionalFlow(latent)`` or a
            :class:`~pyro_lvm.distributions.VampPrior`; the standard Normal if left out. It may
            draw auxiliary sites, as :class:`~pyro_lvm.distributions.SemiImplicitPrior` does.
        data_mean: ``(D,)`` mean of the training data, for the start of the MLP's output bias.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood or prior of another size;
            ``data_mean`` beside ``decoder``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = VAE(in_features=64, latent_features=(8, 4), hidden=(20,))
        >>> model.latent_features
        {'z1': 8, 'z2': 4}
        >>> x = model(size=5)
        >>> x.shape, model.decode(torch.zeros(3, 5, 8)).batch_shape
        (torch.Size([5, 64]), torch.Size([3, 5]))
    """

    _origin: Tensor

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int | Sequence[int] = 16,
        hidden: Hidden = (200, 200),
        likelihood: str | Likelihood = "bernoulli",
        *,
        noise: str = "feature",
        decoder: nn.Module | None = None,
        prior: nn.Module | None = None,
        data_mean: Tensor | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = named_sizes(latent_features)
        self.num_data = check_num_data(num_data)
        self.likelihood = as_likelihood(likelihood, in_features, noise)
        self.prior = prior
        sizes = list(self.latent_features.values())
        self.register_buffer("_origin", torch.zeros(sizes[-1]), persistent=False)
        first, *others = hidden_by_layer(hidden, len(sizes))
        self.decoder = decoder or MLP(sizes[0], self.likelihood.num_outputs, first)
        self.layers = nn.ModuleList(
            ConditionalNormal(above, below, layer)
            for below, above, layer in zip(sizes[:-1], sizes[1:], others, strict=True)
        )
        if data_mean is not None:
            self._start_at(data_mean)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """The latent sites, top first, and "x", inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data from the prior predictive.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self._origin)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        *lower, top = self.latent_features
        with plate as rows:
            z = pyro.sample(top, self._top_prior(len(rows)))
            for name, layer in zip(reversed(lower), reversed(self.layers), strict=True):
                z = pyro.sample(name, layer(z))
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given the lowest latent ``(*, latent)``: batch ``(*,)``."""
        return self.likelihood.row(self.decoder(z))

    def _top_prior(self, num_rows: int) -> dist.TorchDistribution:
        if self.prior is None:
            return diagonal_normal(self._origin, 1.0)
        prior: dist.TorchDistribution = self.prior()
        fits = prior.batch_shape[-1:] in ((), (1,), (num_rows,))
        if not fits or prior.event_shape != self._origin.shape:
            expected = f"batch shape () and event shape {tuple(self._origin.shape)}"
            found = f"{tuple(prior.batch_shape)} and {tuple(prior.event_shape)}"
            hint = "Give it the size of the top latent layer, and .to_event(1)."
            raise ProgramError(explain("prior", expected, found, hint))
        return prior

    def _start_at(self, data_mean: Tensor) -> None:
        if not isinstance(self.decoder, MLP):
            hint = "Set the bias of your decoder's last layer instead."
            found = f"a {type(self.decoder).__name__}"
            raise ProgramError(explain("data_mean", "the default decoder", found, hint))
        start_at_mean(self.decoder, self.likelihood, data_mean, self.in_features)
