"""Networks with noise inside: from a context to a distribution that has draws alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import expm1, log
from typing import NamedTuple

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import elu

from pyro_lvm.distributions import Implicit
from pyro_lvm.nn import MLP, positive_scale

__all__ = ["BasisNoise", "ConcatNoise", "Moments"]

_SMALL = 0.1  # of a layer's usual start


class Moments(NamedTuple):
    """Mean and standard deviation of each entry, ``(*batch, features)``."""

    mean: Tensor
    scale: Tensor


class ConcatNoise(nn.Module):
    r"""Noise beside the input of every layer; z starts near a standard Normal.

    .. math:: a_1 = A_1 c + N_1 \epsilon_1, \quad
        a_l = A_l \, \mathrm{elu}(a_{l-1}) + N_l \epsilon_l, \quad z = a_L

    :math:`A_1 c` is computed once, for all draws.

    Args:
        context_features: size of the context c.
        features: size of z, and of the last layer's noise.
        noise_features: size of each hidden layer's noise.
        hidden: sizes of the hidden layers.

    Example:
        >>> noise = ConcatNoise(4, 2, noise_features=3, hidden=(8,))
        >>> noise(torch.zeros(5, 4)).rsample((7,)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self, context_features: int, features: int, noise_features: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        self.features = features
        sizes = [context_features, *hidden, features]
        layers = [MLP(below, above, ()) for below, above in pairwise(sizes)]
        noise = [_Noise(noise_features, size) for size in hidden] + [_Noise(features, features)]
        with torch.no_grad():
            nn.init.eye_(noise[-1].linear.weight)
            for parameter in layers[-1].parameters():
                parameter.mul_(_SMALL)
        self.layers, self.noise = nn.ModuleList(layers), nn.ModuleList(noise)

    def forward(self, context: Tensor) -> Implicit:
        """The distribution given ``(*batch, context_features)``: event ``(features,)``."""
        entry: Tensor = self.layers[0](context)
        shape = (*context.shape[:-1], self.features)
        return Implicit(partial(self._draw, entry), event_dim=1, shape=shape)

    def _draw(self, entry: Tensor, sample_shape: Size) -> Tensor:
        left = sample_shape + entry.shape[:-1]
        first, *others = self.noise
        with _full_precision(entry):
            z: Tensor = entry + first(entry, left)
            for layer, noise in zip(self.layers[1:], others, strict=True):
                z = layer(elu(z)) + noise(entry, left)
        return z


class BasisNoise(nn.Module):
    r"""Networks of noise alone, which the context shifts and scales.

    .. math:: z = z_0(c) + \sum_i a_i(c) \odot v_i(\epsilon_i)

    As the :math:`v_i` know nothing of the context, their moments give those of z for every
    context. z starts near a standard Normal.

    Args:
        context_features: size of the context c.
        features: size of z.
        noise_features: size of each :math:`\epsilon_i`.
        hidden: sizes of the hidden layers of each :math:`v_i`.
        num_bases: number of them.

    Example:
        >>> noise = BasisNoise(4, 2, noise_features=3, hidden=(8,), num_bases=16)
        >>> noise(torch.zeros(5, 4)).rsample((7,)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        context_features: int,
        features: int,
        noise_features: int,
        hidden: Sequence[int],
        num_bases: int,
    ) -> None:
        super().__init__()
        self.num_bases, self.features, self.noise_features = num_bases, features, noise_features
        self.coefficients = MLP(context_features, (num_bases + 1) * features, hidden[:1])
        sizes = [noise_features, *hidden, features]
        stacks = [_Stack(num_bases, below, above) for below, above in pairwise(sizes)]
        self.bases = nn.ModuleList(stacks)
        with torch.no_grad():
            for parameter in self.coefficients.layers[-1].parameters():
                parameter.mul_(_SMALL)
            self.coefficients.bias[features:] = log(expm1(num_bases**-0.5))  # variances sum to 1
            self._standardise(stacks[-1])

    def forward(self, context: Tensor) -> Implicit:
        """The distribution given ``(*batch, context_features)``: event ``(features,)``."""
        centre, scales = self._coefficients(context)
        draw = partial(self._draw, centre, scales)
        return Implicit(draw, event_dim=1, shape=centre.shape)

    def moments(self, context: Tensor, num_draws: int) -> Moments:
        """Of z, for each context: exact, given the moments of ``num_draws`` draws of each v."""
        centre, scales = self._coefficients(context)
        v = self._bases(centre, num_draws)
        mean = centre + (scales * v.mean(1)).sum(-2)
        variance = (scales.square() * v.var(1)).sum(-2)
        return Moments(mean, variance.sqrt())

    def _standardise(self, last: _Stack, num_draws: int = 1000) -> None:
        """Give each :math:`v_i` mean 0 and variance 1."""
        v = self._bases(last.weight, num_draws)
        scale, mean = torch.std_mean(v, 1, keepdim=True)
        last.weight.div_(scale)
        last.bias.sub_(mean).div_(scale)

    def _coefficients(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """:math:`z_0` ``(*batch, features)`` and the a ``(*batch, num_bases, features)``."""
        raw = self.coefficients(context).unflatten(-1, (-1, self.features))
        return raw[..., 0, :], positive_scale(raw[..., 1:, :])

    def _draw(self, centre: Tensor, scales: Tensor, sample_shape: Size) -> Tensor:
        left = sample_shape + centre.shape[:-1]
        v = self._bases(centre, left.numel()).movedim(0, -2)  # (draws, num_bases, features)
        return centre + (scales * v.reshape(*left, *v.shape[1:])).sum(-2)

    def _bases(self, like: Tensor, num_draws: int) -> Tensor:  # (num_bases, draws, features)
        first, *others = self.bases
        with _full_precision(like):
            v: Tensor = first(_normal(like, self.num_bases, num_draws, self.noise_features))
            for layer in others:
                v = layer(elu(v))
        return v


class _Noise(nn.Module):
    """Fresh noise through a linear layer."""

    def __init__(self, noise_features: int, features: int) -> None:
        super().__init__()
        self.noise_features = noise_features
        self.linear = nn.Linear(noise_features, features, bias=False)

    def forward(self, like: Tensor, left: Size) -> Tensor:  # (*left, features)
        noise: Tensor = self.linear(_normal(like, *left, self.noise_features))
        return noise


class _Stack(nn.Module):
    """Linear layers side by side, ``(num, rows, in) -> (num, rows, out)``."""

    def __init__(self, num: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(num, 1, out_features))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def _normal(like: Tensor, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device)


def _full_precision(like: Tensor) -> torch.autocast:
    """Draws rounded to bfloat16 would give a discriminator something to see."""
    return torch.autocast(like.device.type, enabled=False)
