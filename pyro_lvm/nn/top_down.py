"""The conditionals of a hierarchy from its top down, for a model and a ladder guide to share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_lvm.nn.arguments import Hidden, hidden_by_layer, named_sizes
from pyro_lvm.nn.dense import Dense
from pyro_lvm.nn.networks import MLP, diagonal_normal, positive_scale

__all__ = ["NormalLayer", "TopDown"]


class NormalLayer(nn.Module):
    """Diagonal Normal whose mean and scale hidden layers compute from their input.

    Args:
        in_features: size of the last dim of the input.
        out_features: event size of the distribution.
        hidden: sizes of the hidden layers; none at all makes it linear.
        batch_norm: normalise each of these over the batch.

    Example:
        >>> import torch
        >>> q = NormalLayer(3, 2, hidden=(8,))(torch.zeros(5, 3))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int],
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dense = Dense(in_features, hidden, batch_norm=batch_norm)
        self.head = MLP(self.dense.out_features, 2 * out_features, hidden=())

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        loc, raw = self.head(self.dense(h)).chunk(2, -1)
        return diagonal_normal(loc, positive_scale(raw))


class TopDown(nn.Module):
    r"""Every :math:`p(z_l \mid z_{l+1})` of a hierarchy, diagonal Normals.

    A :class:`~pyro_lvm.models.HierarchicalVAE` owns one, ``model.top_down``, and a
    :class:`~pyro_lvm.guides.LadderNormal` is given the same: its parameters are then trained
    once, by the gradient of both.

    Args:
        latent_features: sizes of the layers from the data upwards, which are the sites "z1",
            "z2", ... (one alone is "z"), or sizes by site.
        hidden: hidden sizes of every network, or one tuple of them for each but the top layer.
        batch_norm: normalise each hidden layer over the batch.

    Attributes:
        latent_features: sizes by site.

    Raises:
        ProgramError: a size below 1, another number of tuples than of layers.

    Example:
        >>> import torch
        >>> top_down = TopDown((8, 4, 2), hidden=(20,))
        >>> [(name, layer(torch.zeros(5, size)).event_shape)
        ...     for (name, layer), size in zip(top_down.downwards(), (2, 4))]
        [('z2', torch.Size([4])), ('z1', torch.Size([8]))]
    """

    def __init__(
        self,
        latent_features: int | Sequence[int] | Mapping[str, int],
        hidden: Hidden = (200, 200),
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.latent_features = named_sizes(latent_features)
        sizes = list(self.latent_features.values())
        networks = hidden_by_layer(hidden, len(sizes) - 1)
        self.layers = nn.ModuleList(
            NormalLayer(above, below, layer, batch_norm=batch_norm)
            for below, above, layer in zip(sizes[:-1], sizes[1:], networks, strict=True)
        )

    @property
    def top(self) -> str:
        """The site of the top layer."""
        return list(self.latent_features)[-1]

    def downwards(self) -> list[tuple[str, nn.Module]]:
        """Each site below the top, with the network that reads the layer above it."""
        return list(zip(self.latent_features, self.layers, strict=False))[::-1]
