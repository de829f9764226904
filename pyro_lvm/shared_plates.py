"""One minibatch for several runs of the same programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["OneMinibatch", "SharedPlates"]


class SharedPlates(Messenger):
    """Opens plates with the indices of another run, so that runs share a minibatch.

    A run that drew indices, done again from the same random numbers, draws them again: what it
    draws later depends on it.

    Args:
        given: what plates are opened with, by name.

    Attributes:
        indices: what each plate was opened with.
        drawn: what draws the indices of each plate that a run drew a minibatch from.

    Example:
        >>> import pyro, torch
        >>> with SharedPlates() as first, pyro.plate("data", 100, subsample_size=3) as rows:
        ...     pass
        >>> with SharedPlates(first.indices), pyro.plate("data", 100, subsample_size=3) as again:
        ...     torch.equal(rows, again)
        True
    """

    def __init__(self, given: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self._given = {**(given or {})}
        self.indices = {**self._given}
        self.drawn: dict[str, Any] = {}

    def draw(self, plates: Mapping[str, Any]) -> list[Tensor]:
        """Indices of plates such as those in ``drawn``, drawn here if in no run before."""
        for name, fn in plates.items():
            if name not in self.indices:
                self.indices[name] = fn.sample()
        return [self.indices[name] for name in plates]

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not _opens_plate(msg) or msg["value"] is not None:
            return
        if msg["name"] in self._given:
            msg["value"] = self._given[msg["name"]]
        elif _takes_some(msg["fn"]):
            self.drawn[msg["name"]] = msg["fn"]

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if _opens_plate(msg):
            self.indices[msg["name"]] = msg["value"]


class OneMinibatch(SharedPlates):
    """Opens each plate with the indices of its first run within it, so that all runs share them.

    Example:
        >>> import pyro, torch
        >>> shared = OneMinibatch()
        >>> with shared, pyro.plate("data", 100, subsample_size=3) as rows:
        ...     pass
        >>> with shared, pyro.plate("data", 100, subsample_size=3) as again:
        ...     torch.equal(rows, again)
        True
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        self._given |= self.indices
        super()._pyro_sample(msg)


def _opens_plate(msg: Mapping[str, Any]) -> bool:
    return type(msg["fn"]).__name__ == "_Subsample"


def _takes_some(fn: Any) -> bool:
    return fn.subsample_size is not None and fn.subsample_size < fn.size
