"""One minibatch for several runs of the same programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["SharedPlates"]


class SharedPlates(Messenger):
    """Opens each plate with the indices of its first run, so that all runs share a minibatch.

    Attributes:
        indices: what each plate was opened with, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.indices: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if _opens_plate(msg) and msg["value"] is None and msg["name"] in self.indices:
            msg["value"] = self.indices[msg["name"]]

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if _opens_plate(msg):
            self.indices.setdefault(msg["name"], msg["value"])


def _opens_plate(msg: Mapping[str, Any]) -> bool:
    return type(msg["fn"]).__name__ == "_Subsample"
