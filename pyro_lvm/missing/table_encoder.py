"""What networks read of mixed tables: classes as indicators, counts by their logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyro_lvm.missing.columns import Column, CountColumn
from pyro_lvm.nn import MLP, ZeroImputing

if TYPE_CHECKING:
    from pyro_lvm.missing.schema import Schema

__all__ = ["TableEncoder", "TableFeatures"]


class TableFeatures(nn.Module):
    """``(B, D)`` numbers of a table to ``(B, out_features)``, NaN where their column is NaN.

    A class becomes C indicators, a count log(1 + x); other numbers stay.

    Args:
        columns: of the table.

    Example:
        >>> import pandas as pd
        >>> from pyro_lvm.missing.columns import ClassColumn, CountColumn
        >>> place = ClassColumn("place", pd.CategoricalDtype(["sea", "town"]))
        >>> features = TableFeatures([CountColumn("visits", "int64"), place])
        >>> features(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]))
        tensor([[0., 0., 1.],
                [0., nan, nan]])
    """

    source: Tensor
    number: Tensor
    is_count: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        sizes = [max(1, column.num_classes) for column in columns]
        self.out_features = sum(sizes)
        numbers = [n if c.num_classes else -1 for c in columns for n in range(c.num_classes or 1)]
        counts = torch.tensor([isinstance(column, CountColumn) for column in columns])
        source = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        self.register_buffer("source", source, persistent=False)  # column of each feature
        self.register_buffer("number", torch.tensor(numbers), persistent=False)  # its class, or -1
        self.register_buffer("is_count", counts, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.where(self.is_count, x.clamp(min=0.0).log1p(), x)[:, self.source]
        indicators = (columns == self.number).to(x)
        is_class = (self.number >= 0) & ~columns.isnan()
        return torch.where(is_class, indicators, columns)


class TableEncoder(nn.Module):
    """Encoder of tables with missing cells, as their schema describes them.

    Any guide takes it as ``encoder=``, with ``encoder_features=encoder.out_features``.

    Args:
        schema: of the table.
        hidden: hidden sizes of the MLP that takes :class:`TableFeatures` with zeros for what is
            missing, and their mask; the last is ``out_features``.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> import pandas as pd
        >>> from pyro_lvm.missing import Schema
        >>> schema = Schema.of(pd.DataFrame({"height": [1.6, None, 1.8]}))
        >>> TableEncoder(schema, (9,))(torch.tensor([[float("nan")]])).shape
        torch.Size([1, 9])
    """

    def __init__(self, schema: Schema, hidden: Sequence[int] = (200, 200)) -> None:
        super().__init__()
        self.features = TableFeatures(schema.columns)
        self.encoder = ZeroImputing(MLP(2 * self.features.out_features, None, hidden))
        self.out_features: int = self.encoder.out_features

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D)`` numbers with NaN to ``(B, out_features)``."""
        features: Tensor = self.encoder(self.features(x))
        return features
