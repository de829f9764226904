"""What conditional models are given: the entries to condition on, and what networks read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn.arguments import check_size

__all__ = ["RowReader", "conditions"]


def conditions(x: Tensor, observed: Any) -> Tensor:
    """The entries to condition on: those of ``observed`` that are not NaN.

    Args:
        x: data ``(B, D)``.
        observed: bool ``(B, D)``, True = observed; None for all entries that are not NaN.

    Raises:
        DataError: a mask of another dtype or shape.

    Example:
        >>> x = torch.tensor([[1.0, float("nan"), 2.0]])
        >>> conditions(x, torch.tensor([[True, True, False]]))
        tensor([[ True, False, False]])
    """
    known = ~x.isnan()
    if observed is None:
        return known
    mask = torch.as_tensor(observed, device=x.device)
    if mask.dtype != torch.bool or mask.shape != x.shape:
        found = f"{mask.dtype} of shape {tuple(mask.shape)}"
        expected = f"a bool tensor of shape {tuple(x.shape)}, True = observed"
        hint = "Draw it by pyro_lvm.missing.mcar(x), or leave it out to condition on all of x."
        raise DataError(explain("observed", expected, found, hint))
    return mask & known


class RowReader(nn.Module):
    """Rows with NaN as numbers for a network: what is there, zeros elsewhere, and which is which.

    Args:
        in_features: size of a row, D.
        features: from rows ``(B, D)`` to ``(B, F)``, both with NaN for what is missing, and with
            F as its attribute ``out_features``: a :class:`~pyro_lvm.missing.TableFeatures`. The
            rows themselves if left out.

    Attributes:
        out_features: F.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> RowReader(2)(torch.tensor([[1.5, float("nan")]]))
        (tensor([[1.5000, 0.0000]]), tensor([[1., 0.]]))
    """

    def __init__(self, in_features: int, features: nn.Module | None = None) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.features = features
        out_features: Any = in_features if features is None else features.out_features
        self.out_features = check_size("out_features of features", out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(B, F)`` and their mask ``(B, F)``, 1 = there."""
        read = x if self.features is None else self.features(x)
        there = ~read.isnan()
        return torch.where(there, read, 0.0), there.to(read)
