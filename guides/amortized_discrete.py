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

from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import check_choice, check_num_data, check_positive, data_plate, named_sizes

__all__ = ["AmortizedDiscrete", "Variables"]

Variables = int | None | Mapping[str, int | None]


class AmortizedDiscrete(PyroModule):
    """Base of guides that draw independent discrete variables from an encoder's logits.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        encoder_features: size of a given encoder's output.
        in_features: size of a datum, for the MLP.
        hidden: hidden sizes of the MLP.
        latent_features: number of variables of the site "z", or numbers by site; None for a
            site that is one variable, of no event dim of its own.
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
        latent_features: Variables,
        logits_shape: tuple[int, ...],
        draw: str,
        temperature: float,
        num_data: int | None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("draw", draw, ("exact", "relaxed", "straight_through"))
        self.latent_features = _named(latent_features)
        self.logits_shape = logits_shape
        self.draw = draw
        self.temperature = check_positive("temperature", temperature, "0.5")
        self.num_data = check_num_data(num_data)
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
            name: self._site(() if size is None else (size,), logits)
            for (name, size), logits in sites
        }

    def _site(self, shape: tuple[int, ...], outputs: Tensor) -> dist.TorchDistribution:
        logits = outputs.reshape(*outputs.shape[:-1], *shape, *self.logits_shape)
        site: dist.TorchDistribution = self.variables(logits).to_event(len(shape))
        return site

    @property
    def _num_outputs(self) -> list[int]:
        one = prod(self.logits_shape)
        return [one if size is None else size * one for size in self.latent_features.values()]


def _named(latent_features: Variables) -> dict[str, int | None]:
    """Numbers of variables by site, by the naming rule of all guides."""
    by_name = latent_features if isinstance(latent_features, Mapping) else {"z": latent_features}
    sizes = {name: size for name, size in by_name.items() if size is not None}
    checked = named_sizes(sizes) if sizes or not by_name else {}
    return {name: checked.get(name) for name in by_name}
