"""Encoder of a VAE of convolution kernels, which is the reverse model of a prior of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.nn import ConditionalNormal, as_batch, check_num_data, check_size, data_plate

__all__ = ["KernelEncoder"]


class KernelEncoder(PyroModule):
    r"""Diagonal Normal of a kernel's latent given the kernel.

    .. math:: r(z \mid x) = N(z; m(x), \mathrm{diag}(s(x)^2))

    As a guide it is trained with the VAE of kernels, one flattened kernel a datum. Its network
    ``reverse`` is for :class:`~pyro_lvm.guides.KernelPosterior`, which draws the kernels itself,
    with any left dims.

    References:
        Atanov, Ashukha, Struminsky, Vetrov, Welling (2019), *The deep weight prior*,
        arXiv:1810.06943, section 3.

    Args:
        in_features: weights of a kernel, k * k.
        latent_features: size of the site "z".
        hidden: hidden sizes of the network.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: a size below 1.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = KernelEncoder(in_features=9, latent_features=2, hidden=(20,))
        >>> guide(torch.randn(5, 9))["z"].shape
        torch.Size([5, 2])
        >>> guide.reverse(torch.randn(3, 5, 9)).batch_shape
        torch.Size([3, 5])
    """

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int = 16,
        hidden: Sequence[int] = (200, 200),
        *,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = {"z": check_size("latent_features", latent_features)}
        self.num_data = check_num_data(num_data)
        self.reverse = ConditionalNormal(in_features, latent_features, hidden)

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of "z", ``(B, latent_features)``, inside plate "data"."""
        x = as_batch(x, self.in_features, like=self.reverse.network.bias)
        with data_plate(len(x), self.num_data, like=x):
            return {"z": pyro.sample("z", self.reverse(x))}
