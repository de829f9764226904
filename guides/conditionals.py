"""Conditional distributions with a density, chosen by name: Normals and flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_lvm.distributions.flow import FAMILIES, ConditionalFlow
from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.nn import MLP, check_choice, check_size

__all__ = ["Conditionals"]


class Conditionals(nn.Module):
    """From one vector to the distribution of each latent site, independent given it.

    Args:
        in_features: size of the vector.
        latent_features: sizes by site.
        kind: a covariance of a Normal, "diagonal", "low_rank" or "full", or a family of flows,
            "iaf", "insf", "maf" or "nsf".
        rank: number of factors of "low_rank".
        num_transforms: number of autoregressive layers of a flow.
        flow_hidden: hidden sizes of each of these.

    Raises:
        ProgramError: an unknown kind, a size below 1.

    Example:
        >>> import torch
        >>> given = Conditionals(4, {"a": 2, "b": 3}, "low_rank", rank=1)
        >>> {name: q.event_shape for name, q in given(torch.zeros(5, 4)).items()}
        {'a': torch.Size([2]), 'b': torch.Size([3])}
    """

    def __init__(
        self,
        in_features: int,
        latent_features: Mapping[str, int],
        kind: str,
        *,
        rank: int = 4,
        num_transforms: int = 2,
        flow_hidden: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        check_choice("conditional", kind, [*COVARIANCES, *FAMILIES])
        self.names = list(latent_features)
        self.sites = nn.ModuleList(
            _Normal(in_features, size, kind, rank)
            if kind in COVARIANCES
            else ConditionalFlow(
                size, in_features, kind, num_transforms=num_transforms, hidden=flow_hidden
            )
            for size in latent_features.values()
        )

    def forward(self, h: Tensor) -> dict[str, dist.TorchDistribution]:
        """Batch ``(*,)`` and event ``(size,)`` each, given ``h`` ``(*, in_features)``."""
        return {name: site(h) for name, site in zip(self.names, self.sites, strict=True)}


class _Normal(nn.Module):
    """Normal whose mean and covariance a linear layer computes."""

    def __init__(self, in_features: int, features: int, covariance: str, rank: int) -> None:
        super().__init__()
        self.features, self.rank = features, check_size("rank", rank)
        self.covariance = COVARIANCES[covariance]
        self.head = MLP(in_features, self.covariance.num_outputs(features, rank), ())

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return self.covariance.normal(self.head(h), self.features, self.rank)
