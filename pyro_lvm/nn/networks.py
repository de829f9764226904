"""Networks whose outputs no density sees in half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.nn.arguments import check_choice, check_size

__all__ = ["MLP", "ConditionalNormal", "diagonal_normal", "positive_scale", "widen"]

_NARROW = (torch.float16, torch.bfloat16)
_POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "softplus": nn.functional.softplus,
}


class MLP(nn.Module):
    """Fully connected network ``(*, in_features) -> (*, out_features)``, any left dims.

    The output is float32 or wider, also under autocast, so that no density sees bfloat16.

    Args:
        in_features: size of the last dim of the input.
        out_features: size of the last dim of the output; None leaves out the output layer,
            so that the last hidden layer, after its activation, is the output.
        hidden: sizes of the hidden layers, possibly none.
        activation: makes the module between layers.
        init: "glorot" (uniform weights, zero biases) or "torch" (the layers' own).

    Raises:
        ProgramError: a size below 1, or an unknown ``init``.

    Example:
        >>> MLP(64, 10, hidden=(32,))(torch.zeros(5, 3, 64)).shape
        torch.Size([5, 3, 10])
        >>> MLP(64, None, hidden=(32,)).out_features
        32
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None,
        hidden: Sequence[int] = (200, 200),
        activation: Callable[[], nn.Module] = nn.Tanh,
        *,
        init: str = "glorot",
    ) -> None:
        super().__init__()
        check_choice("init", init, ("glorot", "torch"))
        sizes = [check_size("in_features", in_features)]
        sizes += [check_size("hidden", size) for size in hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        if out_features is not None:
            layers.append(nn.Linear(sizes[-1], check_size("out_features", out_features)))
        self.in_features = in_features
        self.out_features = sizes[-1] if out_features is None else out_features
        self.layers = nn.Sequential(*layers)
        if init == "glorot":
            self.layers.apply(_glorot)

    def forward(self, x: Tensor) -> Tensor:
        return widen(self.layers(x))

    @property
    def bias(self) -> Tensor:
        """Bias of the last linear layer."""
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        return linear[-1].bias


class ConditionalNormal(nn.Module):
    """Diagonal Normal whose mean and scale an MLP computes from its input.

    Args:
        in_features: size of the last dim of the input.
        out_features: event size of the distribution.
        hidden: sizes of the hidden layers.
        transform: "softplus" or "exp", see :func:`positive_scale`.

    Example:
        >>> q = ConditionalNormal(3, 2, hidden=(8,))(torch.zeros(5, 3))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (200, 200),
        *,
        transform: str = "softplus",
    ) -> None:
        super().__init__()
        check_choice("transform", transform, _POSITIVE)
        self.transform = transform
        self.network = MLP(in_features, 2 * check_size("out_features", out_features), hidden)

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        loc, raw = self.network(h).chunk(2, -1)
        return diagonal_normal(loc, positive_scale(raw, self.transform))


def diagonal_normal(loc: Tensor, scale: Tensor | float) -> dist.TorchDistribution:
    """Independent Normals over the last dim, which is the event dim.

    Example:
        >>> normal = diagonal_normal(torch.zeros(5, 2), 1.0)
        >>> normal.batch_shape, normal.event_shape
        (torch.Size([5]), torch.Size([2]))
    """
    normal: dist.TorchDistribution = dist.Normal(loc, scale).to_event(1)
    return normal


def positive_scale(raw: Tensor, transform: str = "softplus", floor: float = 1e-6) -> Tensor:
    """Unconstrained ``raw`` to scales above ``floor``, elementwise, float32 or wider.

    Args:
        raw: any shape.
        transform: "softplus", steady where ``raw`` is large, or "exp", as in most papers.
        floor: added, so that no density divides by zero.

    Example:
        >>> positive_scale(torch.tensor([-200.0, 0.0]), "exp")
        tensor([1.0000e-06, 1.0000e+00])
    """
    check_choice("transform", transform, _POSITIVE)
    return _POSITIVE[transform](widen(raw)) + floor


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if it is float16 or bfloat16 (autocast's work), else as it is.

    Example:
        >>> [widen(torch.zeros(1, dtype=d)).dtype for d in (torch.bfloat16, torch.float64)]
        [torch.float32, torch.float64]
    """
    return x.float() if x.dtype in _NARROW else x


def _glorot(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
