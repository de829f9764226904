"""Encoders of incomplete data: whatever stands at unobserved entries, their output is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_lvm.nn.arguments import check_size
from pyro_lvm.nn.networks import MLP

__all__ = ["SetEncoder", "ZeroImputing"]


class ZeroImputing(nn.Module):
    """Data with zeros for what is missing, and their mask beside them, through a network.

    Any guide takes it as ``encoder=``, with ``encoder_features=encoder.out_features``.

    References:
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data using
        VAEs*, arXiv:1807.03653, for the zeros.

    Args:
        encoder: takes twice as many features (channels of pictures): the data, then the mask,
            1 = observed; as ``MLP(2 * D, None)`` or ``ConvEncoder(width, in_channels=2)``.

    Example:
        >>> encoder = ZeroImputing(MLP(6, None, hidden=(9,)))
        >>> encoder(torch.tensor([[1.0, float("nan"), 2.0]])).shape, encoder.out_features
        (torch.Size([1, 9]), 9)
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Features of data ``(B, D)`` or ``(B, C, H, W)``.

        Args:
            x: the data.
            observed: bool, of the shape of ``x``, True = observed; where ``x`` is not NaN if
                left out.
        """
        filled, observed = _filled(x, observed)
        features: Tensor = self.encoder(torch.cat([filled, observed.to(filled)], 1))
        return features

    @property
    def out_features(self) -> Any:
        """The network's own."""
        return self.encoder.out_features


class SetEncoder(nn.Module):
    r"""Features of the set of observed entries: a sum over them, whatever their number.

    .. math:: g\Bigl(\sum_{d\, \mathrm{observed}} h(x_d\, e_d + b_d)\Bigr)

    with learned vectors :math:`e_d` and :math:`b_d` for each column. With :math:`b_d = 0` this is
    the paper's encoder, to which an entry of zero says nothing of its column.

    References:
        Ma, Tschiatschek, Palla, Hernandez-Lobato, Nowozin, Zhang (2019), *EDDI: efficient
        dynamic discovery of high-value information with partial VAE*, arXiv:1809.11142.
        Qi, Su, Mo, Guibas (2017), *PointNet*, arXiv:1612.00593.

    Args:
        in_features: number of columns, D.
        embedding_features: size of :math:`e_d`.
        set_hidden: hidden sizes of h; the last is what is summed.
        hidden: hidden sizes of g; the last is ``out_features``.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> encoder = SetEncoder(3, hidden=(9,))
        >>> x = torch.tensor([[1.0, float("nan"), 2.0]])
        >>> encoder(x).shape, encoder.out_features
        (torch.Size([1, 9]), 9)
    """

    def __init__(
        self,
        in_features: int,
        embedding_features: int = 20,
        set_hidden: Sequence[int] = (100,),
        hidden: Sequence[int] = (200,),
    ) -> None:
        super().__init__()
        shape = (
            check_size("in_features", in_features),
            check_size("embedding_features", embedding_features),
        )
        self.scale = nn.Parameter(torch.randn(shape) / embedding_features**0.5)
        self.shift = nn.Parameter(torch.randn(shape) / embedding_features**0.5)
        self.entry = MLP(embedding_features, None, set_hidden)
        self.whole = MLP(self.entry.out_features, None, hidden)
        self.out_features = self.whole.out_features

    def forward(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """``(B, D)`` data to ``(B, out_features)``; see :meth:`ZeroImputing.forward`."""
        filled, observed = _filled(x, observed)
        entries = self.entry(filled.unsqueeze(-1) * self.scale + self.shift)  # (B, D, H)
        features: Tensor = self.whole((entries * observed.unsqueeze(-1)).sum(-2))
        return features


def _filled(x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Zeros at unobserved entries, before any arithmetic: zero times NaN is NaN."""
    observed = ~x.isnan() if observed is None else observed
    return torch.where(observed, x, 0.0), observed
