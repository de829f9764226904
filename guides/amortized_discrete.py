"""What the guides of discrete sites share: one encoder, logits of every variable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import check_choice, check_size, data_plate, named_sizes

__all__ = ["AmortizedDiscrete"]


class AmortizedDiscrete(PyroModule):
    """Base of guides that draw independent discrete variables from an encoder's logits.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        encoder_features: size of a given encoder's output.
        in_features: size of a datum, for the MLP.
        hidden: hidden sizes of the MLP.
        latent_features: number of variables of the site "z", or numbers by site.
        logits_shape: of one variable's logits.
        draw: "exact", "relaxed" or "straight_through".
        temperature: of relaxed and straight-through draws.
        num_data: N, the model's own ``num_data``.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        encoder_features: int | None,
        in_features: int,
        hidden: Sequence[int],
        latent_features: int | Mapping[str, int],
        logits_shape: tuple[int, ...],
        draw: str,
        temperature: float,
        num_data: int | None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("draw", draw, ("exact", "relaxed", "straight_through"))
        self.latent_features = named_sizes(latent_features)
        self.logits_shape = logits_shape
        self.draw = draw
        self.temperature = _check_temperature(temperature)
        self.num_data = num_data if num_data is None else check_size("num_data", num_data)
        num_outputs = sum(self._num_outputs)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, num_outputs)

    @abstractmethod
    def variables(self, logits: Tensor) -> dist.TorchDistribution:
        """Variables of batch ``(*,)`` from their logits ``(*, *logits_shape)``."""

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, *event)``, inside plate "data"."""
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            return {name: pyro.sample(name, fn) for name, fn in posterior.items()}

    def posterior(self, x: Any) -> dict[str, dist.TorchDistribution]:
        """The distribution of each site given each row of ``x``: batch ``(B,)``."""
        outputs = self.encoding(x).split(self._num_outputs, -1)
        sites = zip(self.latent_features.items(), outputs, strict=True)
        return {
            name: self.variables(logits.unflatten(-1, (size, *self.logits_shape))).to_event(1)
            for (name, size), logits in sites
        }

    @property
    def _num_outputs(self) -> list[int]:
        return [size * prod(self.logits_shape) for size in self.latent_features.values()]


def _check_temperature(temperature: float) -> float:
    if not 0.0 < temperature < float("inf"):
        hint = "Pass temperature=0.5."
        raise ProgramError(explain("temperature", "a number above 0", repr(temperature), hint))
    return temperature
