"""Gibbs guide: conditionals of missing entries, and a guide of what is latent beside them."""

from __future__ import annotations

from typing import Any

import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm.guides.gibbs_conditionals import GibbsConditionals

__all__ = ["GibbsGuide"]


class GibbsGuide(PyroModule):
    r"""What :class:`~pyro_lvm.objectives.VGI` trains beside a model.

    .. math:: q(x_j \mid x_{-j}), \quad j = 1, \dots, D, \qquad q(z \mid x)

    As a program it is its posterior, of the rows with zeros for NaN; without one it draws
    nothing. So on complete rows it is the guide of any objective.

    References:
        Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model
        estimation from incomplete data*, arXiv:2111.13180.

    Args:
        conditionals: of each entry given all others.
        posterior: guide of the model's latent sites given complete rows; None for a model
            without, or one whose ``log_evidence`` is exact.

    Raises:
        DataError: rows of another number of features, or none.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> guide = GibbsGuide(GibbsConditionals(6), AmortizedNormal(in_features=6))
        >>> guide(torch.zeros(5, 6))["z"].shape
        torch.Size([5, 16])
    """

    def __init__(self, conditionals: GibbsConditionals, posterior: nn.Module | None = None) -> None:
        super().__init__(name=type(self).__name__)
        self.conditionals = conditionals
        self.posterior = posterior

    def forward(self, x: Any, index: Any = None) -> Any:
        """The posterior's draws. ``index`` is the objective's: rows are told apart by it."""
        if self.posterior is None:
            return {}
        rows = self.conditionals.rows(x)
        return self.posterior(torch.where(rows.isnan(), 0.0, rows))
