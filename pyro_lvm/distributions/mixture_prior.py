"""Learned mixture of Normals as the prior of a VAE, its component summed out."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.nn import check_size, diagonal_normal

__all__ = ["MixturePrior"]


class MixturePrior(nn.Module):
    r"""Prior with clusters, each a Normal of scale 1, all equally likely.

    .. math:: p(z) = \frac1S \sum_{s=1}^S N(z; m_s, I)

    The sum over s is exact, so any guide of z will do and nothing discrete is drawn. With a
    schema's likelihood on :class:`~pyro_lvm.missing.Incomplete` data it makes a VAE a HI-VAE,
    but for two things: the paper draws s from the guide by Gumbel-softmax, and its decoder also
    reads s.

    References:
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data using
        VAEs*, arXiv:1807.03653.

    Args:
        latent_features: size of z.
        components: S; their means ``loc`` ``(S, latent_features)`` are drawn at the start.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> import pandas as pd
        >>> from pyro_lvm.missing import Incomplete, Schema
        >>> from pyro_lvm.models import VAE
        >>> schema = Schema.of(pd.DataFrame({"height": [1.6, None, 1.8], "visits": [3, 1, 0]}))
        >>> prior = MixturePrior(2, components=3)
        >>> model = Incomplete(VAE(2, 2, (9,), schema.likelihood(), prior=prior))
        >>> model(size=5).shape, prior().log_prob(torch.zeros(7, 2)).shape
        (torch.Size([5, 2]), torch.Size([7]))
    """

    loc: Tensor

    def __init__(self, latent_features: int, components: int = 10) -> None:
        super().__init__()
        shape = check_size("components", components), check_size("latent_features", latent_features)
        self.loc = nn.Parameter(torch.randn(shape))

    def forward(self) -> dist.TorchDistribution:
        """Batch shape ``()``, event shape ``(latent_features,)``."""
        choice = dist.Categorical(logits=torch.zeros_like(self.loc[:, 0]))
        normals = diagonal_normal(self.loc, 1.0)
        mixture: dist.TorchDistribution = dist.MixtureSameFamily(choice, normals)
        return mixture
