"""Implicit guide of what all data share: weights that a network makes of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.noise import ConcatNoise
from pyro_lvm.nn import check_size, named_sizes

__all__ = ["ImplicitWeights"]


class ImplicitWeights(PyroModule):
    r"""A hypernetwork for each latent site outside all plates: draws without a density.

    .. math:: w = T(\epsilon_1, \dots, \epsilon_L), \quad \epsilon_l \sim N(0, I)

    Noise enters every layer, and the draws start near a standard Normal. For adversarial
    objectives whose discriminator sees no data, as all data share the weights:
    :class:`~pyro_lvm.objectives.AAE`, whose aggregate is then the posterior itself. Where a
    density is wanted, :class:`~pyro_lvm.guides.SemiImplicitWeights` adds noise at the end.

    References:
        Ha, Dai, Le (2017), *HyperNetworks*, arXiv:1609.09106.
        Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722.

    Args:
        latent_features: size of the site "z", or sizes by site, as in ``{"weights": 8}``.
        noise_features: size of the noise in each hidden layer.
        noise_hidden: sizes of the hidden layers.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> guide = ImplicitWeights({"weights": 3})
        >>> with pyro.plate("draws", 5):
        ...     guide(torch.zeros(10, 3), torch.zeros(10))["weights"].shape
        torch.Size([5, 3])
    """

    _context: Tensor

    def __init__(
        self,
        latent_features: int | Mapping[str, int] = 2,
        *,
        noise_features: int = 16,
        noise_hidden: Sequence[int] = (50, 50),
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        check_size("noise_features", noise_features)
        layers = [check_size("noise_hidden", size) for size in noise_hidden]
        self.networks = nn.ModuleDict(
            {
                name: ConcatNoise(1, size, noise_features, layers)
                for name, size in self.latent_features.items()
            }
        )
        self.register_buffer("_context", torch.ones(1), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of each latent site, ``(size,)``."""
        networks = self.networks.items()
        return {name: pyro.sample(name, network(self._context)) for name, network in networks}
