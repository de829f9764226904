"""Amortised Normal guide: diagonal, low-rank or full covariance, from one encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import check_choice, check_num_data, check_size, data_plate, named_sizes

__all__ = ["AmortizedNormal"]


class AmortizedNormal(PyroModule):
    r"""Normal guide whose mean and covariance a network computes from each datum.

    .. math:: q(z \mid x) = \prod_s N(z_s; m_s(x), C_s(x))

    The encoder runs once a call and one linear layer computes all of its output, for every
    site. Sites are independent of each other given ``x``: each has a covariance block of its
    own. For dependence between layers see
    :class:`~pyro_lvm.guides.hierarchical_normal.HierarchicalNormal`.

    References:
        Kingma, Welling (2014), *Auto-encoding variational Bayes*, arXiv:1312.6114.
        Ong, Nott, Smith (2018), *Gaussian variational approximation with a factor covariance
        structure*, arXiv:1701.03208, for "low_rank".

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of the site "z", or sizes by site, as in ``{"z": 16}``.
        hidden: hidden sizes of the MLP; none at all makes the guide linear.
        covariance: "diagonal", "low_rank" (a diagonal plus ``rank`` factors) or "full".
        rank: number of factors of "low_rank".
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown covariance, a size below 1, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = AmortizedNormal(in_features=6, latent_features={"a": 2, "b": 3}, hidden=(9,))
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 6)).items()}
        {'a': torch.Size([5, 2]), 'b': torch.Size([5, 3])}
        >>> AmortizedNormal(covariance="full").posterior(torch.zeros(5, 64))["z"]
        MultivariateNormal(loc: torch.Size([5, 16]), scale_tril: torch.Size([5, 16, 16]))
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Mapping[str, int] = 16,
        hidden: Sequence[int] = (200, 200),
        covariance: str = "diagonal",
        rank: int = 4,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("covariance", covariance, COVARIANCES)
        self.latent_features = named_sizes(latent_features)
        self.covariance = covariance
        self.rank = check_size("rank", rank)
        self.num_data = check_num_data(num_data)
        num_outputs = sum(self._num_outputs)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, num_outputs)

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            return {name: pyro.sample(name, normal) for name, normal in posterior.items()}

    def posterior(self, x: Any) -> dict[str, dist.TorchDistribution]:
        """The Normal of each site given each row of ``x``: batch ``(B,)``, event ``(size,)``."""
        raw = self.encoding(x).split(self._num_outputs, -1)
        normal = COVARIANCES[self.covariance].normal
        sites = zip(self.latent_features.items(), raw, strict=True)
        return {name: normal(outputs, size, self.rank) for (name, size), outputs in sites}

    @property
    def _num_outputs(self) -> list[int]:
        count = COVARIANCES[self.covariance].num_outputs
        return [count(size, self.rank) for size in self.latent_features.values()]
