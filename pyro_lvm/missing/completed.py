"""A model of complete rows, for objectives that complete rows themselves."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import data_plate

__all__ = ["Completed"]


class Completed(PyroModule):
    r"""A model for :class:`~pyro_lvm.objectives.VGI`, which scores completed rows by it.

    It is called with rows and, under ``fit``, their numbers, which it does not need; NaN count
    as zeros. Where the model has an exact ``log_evidence`` the latents are integrated out: all
    that is left is one factor, :math:`\log p(x)` of each row, so that any objective trains it
    by maximum likelihood and needs no posterior.

    Args:
        model: generative program, ``model(x)``.
        exact: whether to put ``model.log_evidence(x)`` in its place; if left out, where there
            is one.

    Raises:
        ProgramError: ``exact=True`` for a model without ``log_evidence``.

    Example:
        >>> from pyro_lvm.models import FactorAnalysis
        >>> from pyro_lvm.objectives import ELBO
        >>> model, x = FactorAnalysis(3, 2), torch.ones(5, 3)
        >>> exact = ELBO().bound(Completed(model), lambda x: None, x)
        >>> torch.equal(exact, model.log_evidence(x))
        True
    """

    def __init__(self, model: nn.Module, exact: bool | None = None) -> None:
        super().__init__(name=type(self).__name__)
        self.model = model
        self.exact = hasattr(model, "log_evidence") if exact is None else exact
        if self.exact and not hasattr(model, "log_evidence"):
            hint = "Leave exact out, and give the guide a posterior of the latents."
            found = f"a {type(model).__name__} without"
            raise ProgramError(explain("model", "one with log_evidence", found, hint))

    def forward(self, x: Any, index: Any = None) -> Any:
        """The model's own program, or the factor "x" of its log-evidence in plate "data"."""
        x = torch.as_tensor(x)
        x = torch.where(x.isnan(), 0.0, x)
        if not self.exact:
            return self.model(x)
        evidence: Any = self.model.log_evidence
        with data_plate(len(x), like=x):
            pyro.factor("x", evidence(x))
        return x
