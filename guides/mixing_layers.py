"""Networks with noise inside, as auxiliary sites: the mixing half of semi-implicit guides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyro_lvm.nn import MLP, Hidden, check_choice, check_size, diagonal_normal, hidden_by_layer

__all__ = ["MixingLayers"]

_NOISE: dict[str, Callable[[Tensor], dist.TorchDistribution]] = {
    "normal": lambda zeros: diagonal_normal(zeros, 1.0),
    "bernoulli": lambda zeros: dist.Bernoulli(logits=zeros).to_event(1),
}


class MixingLayers(nn.Module):
    r"""Stacked networks, each with fresh noise, from a context to :math:`\psi`.

    .. math:: \psi_1 = T_1(c, \epsilon_1), \quad \psi_l = T_l(c, \psi_{l-1}, \epsilon_l),
        \quad \psi = \psi_L

    The noise of each layer is an auxiliary site, "noise", or "noise1", "noise2", ... from the
    context down. What the context adds to a layer is computed once, for all draws of noise.
    Noise starts with variance 1 in every unit, however wide the context is: noise that is
    drowned at the start is trained away.

    Args:
        context_features: size of the context c; 0 for none.
        noise_features: size of the noise, or sizes of the :math:`\epsilon_l`.
        hidden: sizes of the layers of every T, or one tuple of them for each; the last one is
            the size of :math:`\psi`.
        noise: "normal", or "bernoulli" for fair coins.

    Raises:
        ProgramError: an unknown kind of noise, a size below 1, a network without layers.

    Example:
        >>> layers = MixingLayers(4, noise_features=(3, 2), hidden=(8, 5))
        >>> layers(torch.zeros(7, 4)).shape
        torch.Size([7, 5])
    """

    _origin: Tensor

    def __init__(
        self,
        context_features: int,
        noise_features: int | Sequence[int],
        hidden: Hidden,
        noise: str = "normal",
    ) -> None:
        super().__init__()
        check_choice("noise", noise, _NOISE)
        self.noise = noise
        self.noise_features = _named(noise_features)
        self.register_buffer("_origin", torch.zeros(()), persistent=False)
        layers: list[_Layer] = []
        sizes = self.noise_features.values()
        for size, widths in zip(sizes, hidden_by_layer(hidden, len(sizes)), strict=True):
            below = layers[-1].out_features if layers else 0
            layers.append(_Layer([n for n in (context_features, below, size) if n], widths))
        self.layers = nn.ModuleList(layers)
        self.out_features = layers[-1].out_features

    def forward(self, context: Tensor | None = None) -> Tensor:
        r""":math:`\psi` ``(*, out_features)``, after drawing every noise site."""
        known = [] if context is None else [context]
        below: list[Tensor] = []
        for (name, size), layer in zip(self.noise_features.items(), self.layers, strict=True):
            law = _NOISE[self.noise](self._origin.expand(size))
            noise = pyro.sample(name, law, infer={"is_auxiliary": True})
            below = [layer([*known, *below, noise])]
        return below[0]


class _Layer(nn.Module):
    """An MLP of several vectors side by side, noise last; each enters in its own shape."""

    def __init__(self, in_sizes: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        first, *others = hidden or [0]
        self.in_sizes = list(in_sizes)
        self.entry = nn.Linear(sum(in_sizes), check_size("noise_hidden", first))
        self.rest = MLP(first, None, others)
        self.out_features = self.rest.out_features
        nn.init.xavier_uniform_(self.entry.weight)
        nn.init.zeros_(self.entry.bias)
        nn.init.normal_(self._weights[-1], std=self.in_sizes[-1] ** -0.5)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:  # (*, size) each
        first, *others = map(linear, parts, self._weights)
        h: Tensor = self.rest(sum(others, start=first + self.entry.bias).tanh())
        return h

    @property
    def _weights(self) -> tuple[Tensor, ...]:  # (out, size) each
        weights: tuple[Tensor, ...] = self.entry.weight.split(self.in_sizes, -1)
        return weights


def _named(noise_features: int | Sequence[int]) -> dict[str, int]:
    several = [noise_features] if isinstance(noise_features, int) else list(noise_features)
    sizes = [check_size("noise_features", size) for size in several or [0]]
    if len(sizes) == 1:
        return {"noise": sizes[0]}
    return {f"noise{level}": size for level, size in enumerate(sizes, start=1)}
