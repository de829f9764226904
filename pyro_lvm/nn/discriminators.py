"""Discriminators: networks whose logits are log density ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalize

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import check_size
from pyro_lvm.nn.joining import joined
from pyro_lvm.nn.networks import MLP, widen

__all__ = ["Discriminator"]

_SMALL = 0.01  # of a layer's usual start: logits near 0, with a gradient everywhere


class Discriminator(nn.Module):
    r"""Tells draws of two distributions of z apart, given a context or not.

    .. math:: T(x, z) = \langle w + h(x), \, s(z) \rangle + t(x), \quad s(z) = [r(z), z, z^2]

    Here :math:`r, h, t` are networks. Trained with the logistic loss it tends to the log-ratio
    of the two densities, in nats. The quadratic part alone is exact where both are Normals of
    diagonal covariance, whichever is the wider, and the networks of x are rich enough. Logits
    start near 0.

    ``spectral_norm`` and ``num_blocks`` are options of the hidden layers; the last layers stay
    free, so that a ratio can have any size. A bound on the slope of the features is still a
    bias of the ratio.

    References:
        Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722,
        eq. 3.3 and 3.8.
        Miyato, Kataoka, Koyama, Yoshida (2018), *Spectral normalization for generative
        adversarial networks*, arXiv:1802.05957.

    Args:
        latent_features: size of z.
        context_features: size of the context; None for a discriminator of z alone.
        hidden: hidden sizes of the network of z, and of that of the context.
        num_blocks: residual blocks after the hidden layers of each.
        quadratic: whether s(z) has z and its squares.
        spectral_norm: whether each hidden layer's weight is divided by its largest singular
            value. It is estimated by one step of power iteration a call in training mode.

    Raises:
        ProgramError: a size below 1, no hidden layer, inputs of another size.

    Example:
        >>> T = Discriminator(2, context_features=3, hidden=(8,))
        >>> T(torch.randn(7, 5, 2), torch.randn(5, 3)).shape  # 7 draws for each of 5 data
        torch.Size([7, 5])
    """

    def __init__(
        self,
        latent_features: int,
        context_features: int | None = None,
        hidden: Sequence[int] = (256, 256),
        *,
        num_blocks: int = 0,
        quadratic: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            hint = "Pass hidden sizes, as in hidden=(256, 256)."
            raise ProgramError(explain("hidden", "at least one size", repr(hidden), hint))
        self.latent_features = check_size("latent_features", latent_features)
        self.context_features = context_features
        self.quadratic = quadratic
        self.features = _trunk(latent_features, hidden, num_blocks, spectral_norm)
        num_features = hidden[-1] + 2 * latent_features * quadratic
        self.readout = _small(nn.Linear(num_features, 1))
        if context_features is not None:
            size = check_size("context_features", context_features)
            self.context = _trunk(size, hidden, num_blocks, spectral_norm)
            self.context.append(_small(nn.Linear(hidden[-1], num_features + 1)))

    def forward(self, z: Tensor, context: Any = None) -> Tensor:
        """Logits ``(K?, *plates)``, float32 or wider.

        Args:
            z: ``(K?, *plates, latent_features)``.
            context: ``(*plates, context_features)``, any kind of numbers; its network runs on
                it as it is, before it meets the draws.
        """
        if context is not None:
            context = torch.as_tensor(context).to(self.readout.weight)
        _check_size("z", z, self.latent_features)
        _check_size("context", context, self.context_features)
        features = widen(self.features(z))
        if self.quadratic:
            features = joined([features, z, z.square()])
        weight, shift = self.readout.weight[0], self.readout.bias[0]
        if context is not None:
            given = widen(self.context(context))
            weight, shift = weight + given[..., :-1], shift + given[..., -1]
        logits: Tensor = torch.linalg.vecdot(features, weight) + shift
        return logits


class _Residual(nn.Module):
    """``x + B(A(x))``, near the identity at first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, size), _small(nn.Linear(size, size))

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.outer(nn.functional.elu(self.inner(x)))
        return x + change


def _trunk(
    in_features: int, hidden: Sequence[int], num_blocks: int, spectral_norm: bool
) -> nn.Sequential:
    blocks = [_Residual(hidden[-1]) for _ in range(num_blocks)]
    trunk = nn.Sequential(MLP(in_features, None, hidden, nn.ELU), *blocks)
    for layer in [m for m in trunk.modules() if isinstance(m, nn.Linear) and spectral_norm]:
        normalize(layer)
    return trunk


def _small(layer: nn.Linear) -> nn.Linear:
    with torch.no_grad():
        layer.weight.mul_(_SMALL)
        layer.bias.zero_()
    return layer


def _check_size(name: str, value: Tensor | None, size: int | None) -> None:
    found = None if value is None else value.shape[-1]
    if found != size:
        raise ProgramError(
            explain(
                f"{name} of a discriminator",
                f"{size or 'no'} features",
                f"{found or 'none'}",
                f"Make it with {_MADE_WITH[name]}, the size of what it is given.",
            )
        )


_MADE_WITH = {"z": "latent_features", "context": "context_features"}
