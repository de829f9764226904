"""Programs whose parameters take no gradient."""

from __future__ import annotations

from typing import Any, Self

from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_lvm.tracing import Program

__all__ = ["Frozen"]


class Frozen(Messenger):
    """Runs a program whose parameters, those of a module or stated, have no gradient."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.parameters = [*program.parameters()] if isinstance(program, nn.Module) else []

    def __enter__(self) -> Self:
        self._trained = [p for p in self.parameters if p.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad_(False)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(True)
        super().__exit__(*error)

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        msg["value"] = msg["value"].detach()
