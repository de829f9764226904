"""Training steps that are one graph each, from the batch to the moved parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.training.compiled import CompiledLoss
from pyro_lvm.training.updating import StateMissing, Unrecordable, Update, cut, is_plain

__all__ = ["CompiledStep"]


class CompiledStep:
    """A step's loss, gradient and the optimiser's update as one compiled graph.

    One call in the place of four, ``loss(x)``, ``backward()``, ``optimizer.step()`` and
    ``zero_grad()``: small models spend most of a step between these. Where the loss or the norm
    of the gradient is not finite, parameters and the optimiser's state stay as they are.

    Optimisers of ``torch.optim`` but LBFGS, Adafactor and Muon are in the graph, without hooks
    on their steps, and as long as nothing of their settings changes but the learning rate, which
    may follow any schedule; the first step, which makes their state, is taken as it is. Others
    take their own step, after a compiled loss. With the backend "graph" the update's operations
    are replayed one by one too, which is slower than a fused optimiser's own step.

    Args:
        loss: of the programs.
        optimizer: of its parameters.
        max_grad_norm: the gradient is cut to this norm.

    Raises:
        PyroLVMError: another kind of loss, or an optimiser that is not torch's.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.objectives import IWAE
        >>> model, guide = VAE(6, 2, (8,)), AmortizedNormal(in_features=6, latent_features=2)
        >>> loss = CompiledLoss(IWAE(5, "dreg"), model, guide, backend="graph")
        >>> step = CompiledStep(loss, torch.optim.Adam(loss.parameters()))
        >>> for x in torch.rand(3, 20, 6).round():
        ...     value, norm = step(x)
        >>> loss.num_graphs
        1
    """

    def __init__(
        self, loss: CompiledLoss, optimizer: Optimizer, max_grad_norm: float | None = None
    ) -> None:
        hint = "Pass CompiledLoss(objective, model, guide) and, say, torch.optim.Adam(...)."
        for name, given, kind in (
            ("loss", loss, CompiledLoss),
            ("optimizer", optimizer, Optimizer),
        ):
            if not isinstance(given, kind):
                raise PyroLVMError(explain(name, kind.__name__, type(given).__name__, hint))
        self.loss = loss
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self._update = Update(optimizer, max_grad_norm) if is_plain(optimizer) else None
        self._settings = self._update and self._update.settings

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, and the norm of its gradient before it is cut ``(2,)``."""
        return self.taken(1.0, args, kwargs)

    def taken(self, count: float, args: Any, kwargs: Any) -> Tensor:
        """The same of the loss over ``count``."""
        loss: Any = self.loss
        if self._update is not None and self._update.settings == self._settings:
            try:
                values = self.loss.updated(self._update, count, args, kwargs)
                if values is not None:
                    vars(self.optimizer)["_opt_called"] = True  # what schedules ask for
                    return values
            except StateMissing:
                loss = self.loss.eagerly
            except Unrecordable:
                self._update = None
        return self._outside(loss(*args, **kwargs) / count)

    def _outside(self, loss: Tensor) -> Tensor:
        """With a step of the optimiser's own."""
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = cut(parameters, self.max_grad_norm)
        if bool(loss.isfinite() & norm.isfinite()):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([loss.detach(), norm.to(loss)])
