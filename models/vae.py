"""Variational autoencoder: the generative half, with one or several stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import (
    MLP,
    ConditionalNormal,
    Hidden,
    as_batch,
    check_choice,
    check_size,
    data_plate,
    diagonal_normal,
    hidden_by_layer,
    named_sizes,
    positive_scale,
    widen,
)

__all__ = ["VAE"]


class VAE(PyroModule):
    r"""Deep latent Gaussian model: networks from the top latent layer down to the data.

    .. math:: z_L \sim N(0, I), \quad z_l \mid z_{l+1} \sim N(m_l(z_{l+1}),
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
        likelihood: "bernoulli" for data in {0, 1}, or "gaussian".
        noise: scale of the Gaussian: "feature", one parameter a feature, or "network", a
            second output of the decoder.
        decoder: from ``(*, latent)`` to ``(*, D)``, or ``(*, 2 D)`` with ``noise="network"``;
            it must take any number of left dims. An MLP if left out.
        data_mean: ``(D,)`` mean of the training data, for the start of the MLP's output bias.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice or a size below 1; ``data_mean`` beside ``decoder``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = VAE(in_features=64, latent_features=(8, 4), hidden=(20,))
        >>> model.latent_features
        {'z1': 8, 'z2': 4}
        >>> x = model(size=5)
        >>> x.shape, model.decode(torch.zeros(3, 5, 8)).batch_shape
        (torch.Size([5, 64]), torch.Size([3, 5]))
    """

    noise_scale: Tensor
    _origin: Tensor

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int | Sequence[int] = 16,
        hidden: Hidden = (200, 200),
        likelihood: str = "bernoulli",
        *,
        noise: str = "feature",
        decoder: nn.Module | None = None,
        data_mean: Tensor | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("likelihood", likelihood, ("bernoulli", "gaussian"))
        check_choice("noise", noise, ("feature", "network"))
        self.in_features = check_size("in_features", in_features)
        self.latent_features = named_sizes(latent_features)
        self.num_data = num_data if num_data is None else check_size("num_data", num_data)
        self.likelihood = likelihood
        self.noise = noise
        sizes = list(self.latent_features.values())
        self.register_buffer("_origin", torch.zeros(sizes[-1]), persistent=False)
        first, *others = hidden_by_layer(hidden, len(sizes))
        out_features = in_features * (2 if self._has_noise_output else 1)
        self.decoder = decoder or MLP(sizes[0], out_features, first)
        self.priors = nn.ModuleList(
            ConditionalNormal(above, below, layer)
            for below, above, layer in zip(sizes[:-1], sizes[1:], others, strict=True)
        )
        if likelihood == "gaussian" and noise == "feature":
            self.noise_scale = PyroParam(  # type: ignore[assignment]
                torch.ones(in_features), constraint=constraints.positive
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
        with plate:
            z = pyro.sample(top, diagonal_normal(self._origin, 1.0))
            for name, prior in zip(reversed(lower), reversed(self.priors), strict=True):
                z = pyro.sample(name, prior(z))
            drawn: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return drawn

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given the lowest latent ``(*, latent)``: batch ``(*,)``."""
        output = widen(self.decoder(z))
        if self.likelihood == "bernoulli":
            pixels: dist.TorchDistribution = dist.Bernoulli(logits=output).to_event(1)
            return pixels
        if not self._has_noise_output:
            return diagonal_normal(output, self.noise_scale)
        loc, raw = output.chunk(2, -1)
        return diagonal_normal(loc, positive_scale(raw))

    @property
    def _has_noise_output(self) -> bool:
        return self.likelihood == "gaussian" and self.noise == "network"

    def _start_at(self, data_mean: Tensor) -> None:
        if not isinstance(self.decoder, MLP):
            hint = "Set the bias of your decoder's last layer instead."
            found = f"a {type(self.decoder).__name__}"
            raise ProgramError(explain("data_mean", "the default decoder", found, hint))
        start = torch.as_tensor(data_mean).flatten()
        if len(start) != self.in_features:
            hint = "Pass data.mean(0)."
            expected = f"{self.in_features} means"
            raise ProgramError(explain("data_mean", expected, str(len(start)), hint))
        if self.likelihood == "bernoulli":
            start = torch.logit(start, eps=1e-3)
        with torch.no_grad():
            self.decoder.bias[: self.in_features] = start
