"""Implicit guide: networks with noise inside, which have draws and no density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.guides.noise import BasisNoise, ConcatNoise, Moments
from pyro_lvm.nn import check_choice, check_num_data, check_size, data_plate, joined, named_sizes

__all__ = ["ImplicitGuide"]


class ImplicitGuide(PyroModule):
    r"""Guide without a density: a network maps features of each datum and noise to draws.

    .. math:: z_i = g_i(h(x), z_1, \dots, z_{i-1}, \epsilon_i)

    For objectives with a discriminator, such as :class:`~pyro_lvm.objectives.AVB`. The encoder
    h runs once a datum, the networks g once a particle. The guide starts near a standard
    Normal, so a discriminator's first task is an easy one.

    ========  =====================================================================
    noise     the network g
    ========  =====================================================================
    "concat"  an MLP with fresh noise beside the input of each layer
    "basis"   sums of networks of noise alone, scaled by x; mean and scale are known
    ========  =====================================================================

    References:
        Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722,
        section 2.3, and the supplement for "basis".

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out. For
            pictures :class:`~pyro_lvm.nn.ConvEncoder`, as below.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of the site "z", or sizes by site, as in ``{"z1": 8, "z2": 4}``,
            in the order that they are drawn.
        hidden: hidden sizes of the encoder's MLP; none at all makes it linear.
        noise: "concat" or "basis".
        noise_features: size of the noise of each hidden layer, or of each basis.
        noise_hidden: hidden sizes of g, or of each basis.
        num_bases: number of networks in the sum of "basis".
        context_features: size of :math:`h(x)`.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown kind of noise, a size below 1, no ``noise_hidden``, an encoder
            without ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = ImplicitGuide(in_features=6, latent_features={"z1": 3, "z2": 2})
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 6)).items()}
        {'z1': torch.Size([5, 3]), 'z2': torch.Size([5, 2])}
        >>> mean, scale = ImplicitGuide(in_features=6, noise="basis").moments(torch.zeros(5, 6))
        >>> mean.shape, scale.shape
        (torch.Size([5, 16]), torch.Size([5, 16]))

        For pictures, with a discriminator that sees them by an encoder of its own:

        >>> from pyro_lvm.nn import ConvEncoder, Discriminator
        >>> encoder = ConvEncoder(28, channels=(16, 32))
        >>> guide = ImplicitGuide(encoder, encoder_features=encoder.out_features)
        >>> class PictureDiscriminator(nn.Module):
        ...     def __init__(self, latent_features):
        ...         super().__init__()
        ...         self.encoder = ConvEncoder(28, channels=(16, 32))
        ...         self.logit = Discriminator(latent_features, self.encoder.out_features)
        ...     def forward(self, z, x):
        ...         return self.logit(z, self.encoder(x))
        >>> x = torch.zeros(5, 784)
        >>> PictureDiscriminator(16)(guide(x)["z"], x).shape
        torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Sequence[int] | Mapping[str, int] = 16,
        hidden: Sequence[int] = (200, 200),
        noise: str = "concat",
        noise_features: int = 32,
        noise_hidden: Sequence[int] = (128, 128),
        num_bases: int = 16,
        context_features: int = 128,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("noise", noise, ("concat", "basis"))
        self.latent_features = named_sizes(latent_features)
        self.num_data = check_num_data(num_data)
        width = check_size("context_features", context_features)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, width)
        check_size("noise_features", noise_features)
        layers = _sizes("noise_hidden", noise_hidden)
        bases = check_size("num_bases", num_bases)
        sizes = list(self.latent_features.values())
        self.networks = nn.ModuleList(
            ConcatNoise(before, size, noise_features, layers)
            if noise == "concat"
            else BasisNoise(before, size, noise_features, layers, bases)
            for size, before in zip(sizes, accumulate(sizes, initial=width), strict=False)
        )

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        context = self.encoding(x)
        draws: dict[str, Tensor] = {}
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            for name, network in zip(self.latent_features, self.networks, strict=True):
                draws[name] = pyro.sample(name, network(joined([context, *draws.values()])))
        return draws

    def moments(self, x: Any, num_draws: int = 1000) -> Moments:
        """Mean and scale of z given each row of ``x``, ``(B, size)`` each, with gradients.

        They are exact given the moments of the bases, which are those of ``num_draws`` draws
        that all data share.

        Raises:
            ProgramError: the guide has several sites, or its noise is not "basis".
        """
        first, *others = self.networks
        if others or not isinstance(first, BasisNoise):
            raise ProgramError(
                explain(
                    "moments of an implicit guide",
                    "one site, of noise 'basis'",
                    f"{type(first).__name__} for sites {list(self.latent_features)}",
                    "Make the guide with noise='basis' and one size of latents.",
                )
            )
        return first.moments(self.encoding(x), num_draws)


def _sizes(name: str, sizes: Sequence[int]) -> list[int]:
    if not sizes:
        hint = f"Pass hidden sizes, as in {name}=(128, 128)."
        raise ProgramError(explain(name, "at least one size", repr(sizes), hint))
    return [check_size(name, size) for size in sizes]
