"""What the Bayesian regressions share: checked covariates and outcomes, the linear predictor."""

from __future__ import annotations

from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import as_batch, check_num_data, check_size

__all__ = ["RegressionModel", "linear_predictor"]


class RegressionModel(PyroModule):
    """Base of regressions with one vector of weights for all data, the latent site "weights".

    Args:
        in_features: number of covariates, D; a column of ones among them is an intercept.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.
    """

    _origin: Tensor

    def __init__(self, in_features: int, num_data: int | None) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.num_data = check_num_data(num_data)
        self.register_buffer("_origin", torch.zeros(in_features), persistent=False)

    def _covariates(self, x: Any) -> Tensor:  # (B, D)
        return as_batch(x, self.in_features, like=self._origin)

    def _pairs(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:  # (B, D), (B,)
        x, y = self._covariates(x), torch.as_tensor(y).to(self._origin)
        if y.shape != x.shape[:1]:
            found = f"shape {tuple(y.shape)}"
            hint = "Pass one outcome for each row of x; y.squeeze(-1) drops a last dim of 1."
            raise DataError(explain("y", f"shape ({len(x)},)", found, hint))
        return x, y


def linear_predictor(x: Tensor, weights: Tensor) -> Tensor:  # (*left, B)
    """Rows ``(B, D)`` times weights ``(D,)`` or, with a dim for the plate, ``(*left, 1, D)``."""
    return torch.einsum("...d,...d->...", x, weights)
