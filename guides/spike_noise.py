"""Spike trains from a convolutional network with noise inside: draws, and no density."""

from __future__ import annotations

from functools import partial

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import elu

from pyro_lvm.distributions import Implicit
from pyro_lvm.nn import MLP, OverTime

__all__ = ["ImplicitSpikes"]

_HIDDEN = 16
_WIDTH = 11  # frames
_LAYERS = 2


class ImplicitSpikes(nn.Module):
    r"""Relaxed spikes whose log-odds a network makes from features and noise.

    .. math:: a_1 = A c + N_1 \epsilon_1, \quad
        a_l = W_l * \mathrm{elu}(a_{l-1}) + N_l \epsilon_l, \quad
        z_t = \sigma((l(a_L)_t + g_t) / \lambda)

    with convolutions W over time, so that frames near each other share noise, Normal
    :math:`\epsilon`, logistic g and temperature :math:`\lambda`. Without the :math:`\epsilon`
    the draws would be relaxed Bernoullis. :math:`A c` is computed once, for all draws.

    Args:
        num_features: C, size of a frame's features.
        log_odds: of a spike in a frame, at the start.
        temperature: of the relaxed draws.
        noise_features: size of each :math:`\epsilon_{l,t}`.

    Example:
        >>> spikes = ImplicitSpikes(4, -3.0, temperature=0.5, noise_features=3)
        >>> spikes(torch.zeros(5, 20, 4)).rsample((7,)).shape
        torch.Size([7, 5, 20])
    """

    def __init__(
        self, num_features: int, log_odds: float, temperature: float, noise_features: int
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.noise_features = noise_features
        self.entry = MLP(num_features, _HIDDEN, hidden=())
        self.layers = nn.ModuleList(OverTime(_HIDDEN, _HIDDEN, _WIDTH) for _ in range(_LAYERS))
        self.noise = nn.ModuleList(
            nn.Linear(noise_features, _HIDDEN, bias=False) for _ in range(_LAYERS + 1)
        )
        self.head = MLP(_HIDDEN, 1, hidden=())
        nn.init.constant_(self.head.bias, log_odds)

    def forward(self, features: Tensor) -> Implicit:
        """The distribution given ``(*batch, T, C)``: event ``(T,)``."""
        entry = self.entry(features)
        return Implicit(partial(self._draw, entry), event_dim=1, shape=entry.shape[:-1])

    def _draw(self, entry: Tensor, sample_shape: Size) -> Tensor:
        left = sample_shape + entry.shape[:-1]
        first, *others = self.noise
        with torch.autocast(entry.device.type, enabled=False):
            a = entry + first(self._normal(entry, left))
            for layer, noise in zip(self.layers, others, strict=True):
                a = layer(elu(a)) + noise(self._normal(entry, left))
            logits = self.head(elu(a)).squeeze(-1)
            return torch.sigmoid((logits + _logistic(logits)) / self.temperature)

    def _normal(self, like: Tensor, left: Size) -> Tensor:
        return torch.randn((*left, self.noise_features), dtype=like.dtype, device=like.device)


def _logistic(like: Tensor) -> Tensor:
    return torch.rand_like(like).clamp_min(torch.finfo(like.dtype).tiny).logit()
