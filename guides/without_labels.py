"""A guide of the data for a model that is given labels too."""

from __future__ import annotations

from typing import Any

from pyro.nn import PyroModule
from torch import nn

from pyro_lvm.guides.amortized_normal import AmortizedNormal

__all__ = ["WithoutLabels"]


class WithoutLabels(PyroModule):
    """Any guide, called with the data alone: q(z | x) beside a model p(x, z, y).

    What predicts a label from its draws has then not seen it. For
    :class:`~pyro_lvm.models.SupervisedVAE`.

    Args:
        guide: called as ``guide(x)``; an :class:`~pyro_lvm.guides.AmortizedNormal` if left out.

    Example:
        >>> import torch
        >>> guide = WithoutLabels(AmortizedNormal(in_features=6, latent_features=3))
        >>> guide(torch.zeros(5, 6), torch.tensor([0, 1, -1, -1, -1]))["z"].shape
        torch.Size([5, 3])
    """

    def __init__(self, guide: nn.Module | None = None) -> None:
        super().__init__(name=type(self).__name__)
        self.guide = guide or AmortizedNormal()

    def forward(self, x: Any, y: Any = None) -> Any:
        """The guide's sites, and what it returns.

        Args:
            x: data.
            y: labels, which take no part.
        """
        return self.guide(x)
