"""Semi-implicit guide of each datum: noise through a network, then a conditional density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.conditionals import Conditionals
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.guides.mixing_layers import MixingLayers
from pyro_lvm.nn import Hidden, check_num_data, check_size, data_plate, named_sizes

__all__ = ["SemiImplicitGuide"]


class SemiImplicitGuide(PyroModule):
    r"""Mixture of infinitely many conditionals: any shape of posterior, without a density.

    .. math:: q(z \mid x) = \int \prod_s q(z_s \mid \psi) \, q(\psi \mid h(x)) \, d\psi, \qquad
        \psi_1 = T_1(h, \epsilon_1), \quad \psi_l = T_l(h, \psi_{l-1}, \epsilon_l)

    For :class:`~pyro_lvm.objectives.SIVI` and its relatives, which average out the auxiliary
    sites of the noise. The encoder h runs once a datum; only the networks T run for each draw
    of noise. Several sizes of noise stack several stochastic layers. Latent sites are
    dependent through :math:`\psi`.

    Of flows take "maf" or "nsf": every draw is scored given other noise than its own, which
    costs the inverse families one pass a dim.

    References:
        Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183; section 4.3
        for three layers of noise, of 150, 100 and 50 coins.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of the site "z", or sizes by site, as in ``{"z1": 8, "z2": 4}``.
        hidden: hidden sizes of the encoder's MLP; none at all makes it linear.
        conditional: of each site, a Normal: "diagonal", "low_rank" or "full"; or a flow:
            "iaf", "insf", "maf" or "nsf".
        noise: "normal", or "bernoulli" for fair coins.
        noise_features: size of the noise, or sizes of several layers of it, from the data on.
        noise_hidden: sizes of the layers of every T, or one tuple of them for each.
        context_features: size of :math:`h(x)`.
        rank: number of factors of "low_rank".
        num_transforms: number of autoregressive layers of a flow.
        flow_hidden: hidden sizes of each of these.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown choice, a size below 1, no ``noise_hidden``, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = SemiImplicitGuide(in_features=6, latent_features=2, noise_features=(5, 3))
        >>> {name: z.shape for name, z in guide(torch.zeros(4, 6)).items()}
        {'z': torch.Size([4, 2])}
        >>> sites = pyro.poutine.trace(guide).get_trace(torch.zeros(4, 6)).stochastic_nodes
        >>> sites
        ['data', 'noise1', 'noise2', 'z']
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Sequence[int] | Mapping[str, int] = 16,
        hidden: Sequence[int] = (200, 200),
        conditional: str = "diagonal",
        noise: str = "normal",
        noise_features: int | Sequence[int] = 32,
        noise_hidden: Hidden = (128, 128),
        context_features: int = 128,
        rank: int = 4,
        num_transforms: int = 2,
        flow_hidden: Sequence[int] = (64,),
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        self.num_data = check_num_data(num_data)
        width = check_size("context_features", context_features)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, width)
        self.mixing = MixingLayers(width, noise_features, noise_hidden, noise)
        self.conditionals = Conditionals(
            self.mixing.out_features,
            self.latent_features,
            conditional,
            rank=rank,
            num_transforms=num_transforms,
            flow_hidden=flow_hidden,
        )

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each latent site, ``(B, size)``, inside plate "data"."""
        context = self.encoding(x)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            given = self.conditionals(self.mixing(context))
            return {name: pyro.sample(name, site) for name, site in given.items()}
