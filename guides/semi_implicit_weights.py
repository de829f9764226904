"""Semi-implicit guide of what all data share: weights of a regression, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.guides.conditionals import Conditionals
from pyro_lvm.guides.mixing_layers import MixingLayers
from pyro_lvm.nn import Hidden, named_sizes

__all__ = ["SemiImplicitWeights"]


class SemiImplicitWeights(PyroModule):
    r"""Mixture of infinitely many conditionals for latents outside all plates.

    .. math:: q(w) = \int \prod_s q(w_s \mid \psi) \, q(\psi) \, d\psi, \qquad
        \psi_1 = T_1(\epsilon_1), \quad \psi_l = T_l(\psi_{l-1}, \epsilon_l)

    As :class:`~pyro_lvm.guides.SemiImplicitGuide`, without an encoder: whatever arguments the
    model takes are let pass. For :class:`~pyro_lvm.objectives.SIVI` and its relatives. To
    average a bound over many draws a step put both programs into one plate.

    References:
        Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183, sections
        4.1 and 4.2.

    Args:
        latent_features: size of the site "z", or sizes by site, as in ``{"weights": 8}``.
        conditional: of each site, a Normal: "diagonal", "low_rank" or "full"; or a flow:
            "iaf", "insf", "maf" or "nsf".
        noise: "normal", or "bernoulli" for fair coins.
        noise_features: size of the noise, or sizes of several layers of it.
        noise_hidden: sizes of the layers of every T, or one tuple of them for each.
        rank: number of factors of "low_rank".
        num_transforms: number of autoregressive layers of a flow.
        flow_hidden: hidden sizes of each of these.

    Raises:
        ProgramError: an unknown choice, a size below 1, no ``noise_hidden``.

    Example:
        >>> import torch
        >>> guide = SemiImplicitWeights({"weights": 3})
        >>> guide()["weights"].shape
        torch.Size([3])
        >>> with pyro.plate("draws", 5):
        ...     guide(torch.zeros(10, 3), torch.zeros(10))["weights"].shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        latent_features: int | Mapping[str, int] = 2,
        *,
        conditional: str = "diagonal",
        noise: str = "normal",
        noise_features: int | Sequence[int] = 10,
        noise_hidden: Hidden = (50, 50),
        rank: int = 4,
        num_transforms: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        self.mixing = MixingLayers(0, noise_features, noise_hidden, noise)
        self.conditionals = Conditionals(
            self.mixing.out_features,
            self.latent_features,
            conditional,
            rank=rank,
            num_transforms=num_transforms,
            flow_hidden=flow_hidden,
        )

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of each latent site, ``(size,)``."""
        given = self.conditionals(self.mixing())
        return {name: pyro.sample(name, site) for name, site in given.items()}
