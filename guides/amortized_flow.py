"""Amortised flow guide: a normalising flow for each site, given features of each datum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions.flow import ConditionalFlow
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import check_num_data, check_size, data_plate, joined, named_sizes

__all__ = ["AmortizedFlow"]


class AmortizedFlow(PyroModule):
    r"""Flow guide: any shape of posterior, and dependence between sites.

    .. math:: q(z \mid x) = \prod_i q(z_i \mid h(x), z_1, \dots, z_{i-1})

    Each factor is a :class:`~pyro_lvm.distributions.ConditionalFlow`. Its context is the
    encoder's output :math:`h(x)`, computed once a datum, beside the draws of the sites
    before. It starts near a standard Normal.

    The default family draws in one pass. Under a path gradient ("stl", "dreg"), which scores
    draws anew, "maf" is the faster one; see the table there.

    References:
        Kingma et al. (2016), *Improving variational inference with inverse autoregressive
        flow*, arXiv:1606.04934, section 4.
        Papamakarios, Pavlakou, Murray (2017), *Masked autoregressive flow for density
        estimation*, arXiv:1705.07057.
        Durkan, Bekasov, Murray, Papamakarios (2019), *Neural spline flows*,
        arXiv:1906.04032.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of the site "z", or sizes by site, as in ``{"z1": 8, "z2": 4}``,
            in the order that they are drawn.
        hidden: hidden sizes of the MLP; none at all makes it linear.
        family: "iaf", "insf", "maf" or "nsf".
        num_transforms: number of autoregressive layers of each site.
        context_features: size of :math:`h(x)`.
        flow_hidden: hidden sizes of each layer's network.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown family, a size below 1, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = AmortizedFlow(in_features=6, latent_features={"z1": 3, "z2": 2})
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 6)).items()}
        {'z1': torch.Size([5, 3]), 'z2': torch.Size([5, 2])}
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Sequence[int] | Mapping[str, int] = 16,
        hidden: Sequence[int] = (200, 200),
        family: str = "iaf",
        num_transforms: int = 2,
        context_features: int = 64,
        flow_hidden: Sequence[int] = (64,),
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        self.num_data = check_num_data(num_data)
        width = check_size("context_features", context_features)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, width)
        sizes = list(self.latent_features.values())
        self.flows = nn.ModuleList(
            ConditionalFlow(size, before, family, num_transforms=num_transforms, hidden=flow_hidden)
            for size, before in zip(sizes, accumulate(sizes, initial=width), strict=False)
        )

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        context = self.encoding(x)
        draws: dict[str, Tensor] = {}
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            for name, flow in zip(self.latent_features, self.flows, strict=True):
                draws[name] = pyro.sample(name, flow(joined([context, *draws.values()])))
        return draws
