"""Hierarchical Normal guide: bottom-up, each layer given the one below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import (
    ConditionalNormal,
    Hidden,
    check_num_data,
    data_plate,
    hidden_by_layer,
    named_sizes,
)

__all__ = ["HierarchicalNormal"]


class HierarchicalNormal(PyroModule):
    r"""Diagonal Normals from the data up: each layer's network reads the layer below.

    .. math:: q(z \mid x) = q(z_1 \mid x) \, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})

    The guide of a :class:`~pyro_lvm.models.vae.VAE` with several stochastic layers. The
    encoder runs once a datum, the networks above it once a particle.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, eq. 5 and section 5.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: sizes of the layers from the data upwards, which are the sites "z1",
            "z2", ... (one alone is "z"), or sizes by site.
        hidden: hidden sizes of every network, or one tuple of them for each layer.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: a size below 1, an encoder without ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = HierarchicalNormal(in_features=6, latent_features=(3, 2), hidden=(9,))
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 6)).items()}
        {'z1': torch.Size([5, 3]), 'z2': torch.Size([5, 2])}
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Sequence[int] | Mapping[str, int] = (16, 8),
        hidden: Hidden = (200, 200),
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        self.num_data = check_num_data(num_data)
        sizes = list(self.latent_features.values())
        first, *others = hidden_by_layer(hidden, len(sizes))
        self.encoding = Encoding(encoder, encoder_features, in_features, first, 2 * sizes[0])
        self.layers = nn.ModuleList(
            ConditionalNormal(below, above, layer)
            for below, above, layer in zip(sizes[:-1], sizes[1:], others, strict=True)
        )

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        lowest, *upper = self.latent_features
        size = self.latent_features[lowest]
        first = COVARIANCES["diagonal"].normal(self.encoding(x), size, 0)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            draws = {lowest: pyro.sample(lowest, first)}
            for below, name, layer in zip([lowest, *upper], upper, self.layers, strict=False):
                draws[name] = pyro.sample(name, layer(draws[below]))
        return draws
