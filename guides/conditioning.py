"""Guide of conditional models: the whole datum, and which entries the model conditions on."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import (
    ResidualMLP,
    RowReader,
    as_batch,
    check_choice,
    check_num_data,
    check_size,
    conditions,
    data_plate,
)

__all__ = ["ConditioningGuide"]


class ConditioningGuide(PyroModule):
    r"""Normal guide of a :class:`~pyro_lvm.models.VAEAC`: :math:`q(z \mid x, o)`.

    It reads the datum with zeros where it is NaN, where it is not NaN, and which entries
    :math:`o` the model conditions on: three numbers an entry.

    References:
        Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
        arXiv:1806.02382; the mask is the opposite of the paper's b.

    Args:
        encoder: from ``(B, 3 F)``, those three one after the other, to ``(B, encoder_features)``;
            as ``UNet(28, in_channels=3)`` or ``ConvEncoder(28, in_channels=3)`` for pictures. A
            :class:`~pyro_lvm.nn.ResidualMLP` if left out.
        in_features: size of a datum, D.
        latent_features: size of the site "z".
        width: of the layers of the default encoder, and
        depth: number of its residual blocks.
        features: what the encoder reads of a row, the model's own ``features``.
        covariance: "diagonal", "low_rank" (a diagonal plus ``rank`` factors) or "full".
        rank: number of factors of "low_rank".
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown covariance, a size below 1, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows; a mask of another dtype or
            shape.

    Example:
        >>> guide = ConditioningGuide(in_features=3, latent_features=2, width=16)
        >>> x = torch.tensor([[0.5, 1.0, float("nan")]])
        >>> guide(x, torch.tensor([[True, False, False]]))["z"].shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int = 16,
        width: int = 128,
        depth: int = 3,
        features: nn.Module | None = None,
        covariance: str = "diagonal",
        rank: int = 4,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("covariance", covariance, COVARIANCES)
        self.reader = RowReader(in_features, features)
        self.latent_features = check_size("latent_features", latent_features)
        self.covariance = covariance
        self.rank = check_size("rank", rank)
        self.num_data = check_num_data(num_data)
        read = 3 * self.reader.out_features
        if encoder is None and encoder_features is None:
            encoder, encoder_features = ResidualMLP(read, width, depth), width
        num_outputs = COVARIANCES[covariance].num_outputs(latent_features, self.rank)
        self.encoding = Encoding(encoder, encoder_features, read, (), num_outputs)

    def forward(self, x: Any, observed: Any = None) -> dict[str, Tensor]:
        """One draw of "z", ``(B, latent_features)``, inside plate "data".

        Args:
            x: ``(B, in_features)`` data, NaN where missing.
            observed: bool ``(B, in_features)``, True = observed; None for all that is not NaN.
        """
        posterior = self.posterior(x, observed)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            return {"z": pyro.sample("z", posterior)}

    def posterior(self, x: Any, observed: Any = None) -> dist.TorchDistribution:
        """The Normal of each row: batch ``(B,)``, event ``(latent_features,)``."""
        rows = as_batch(x, self.reader.in_features, like=self.encoding.head.bias)
        values, there = self.reader(rows)
        _, given = self.reader(torch.where(conditions(rows, observed), rows, torch.nan))
        raw = self.encoding(torch.cat([values, there, given], 1))
        return COVARIANCES[self.covariance].normal(raw, self.latent_features, self.rank)
