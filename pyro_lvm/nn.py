"""What models and guides share: networks, positive scales, checked inputs, the data plate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.errors import DataError, PlateError, ProgramError, explain

__all__ = [
    "MLP",
    "ConditionalNormal",
    "Hidden",
    "as_batch",
    "check_choice",
    "check_size",
    "data_plate",
    "diagonal_normal",
    "hidden_by_layer",
    "named_sizes",
    "positive_scale",
    "widen",
]

Hidden = Sequence[int] | Sequence[Sequence[int]]

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
    """Independent Normals over the last dim, which is the event dim."""
    normal: dist.TorchDistribution = dist.Normal(loc, scale).to_event(1)
    return normal


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if it is float16 or bfloat16 (autocast's work), else as it is."""
    return x.float() if x.dtype in _NARROW else x


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


def as_batch(x: Any, features: int | None, like: Tensor) -> Tensor:
    """Data as a tensor ``(B, features)`` of the dtype and on the device of ``like``.

    NumPy arrays, lists, integers and other floating types are converted.

    Args:
        x: the data, one row a datum.
        features: size of a row; None allows rows of any shape, and leaves integers be (they
            may be indices).
        like: a parameter of the program that will use them.

    Raises:
        DataError: no rows, or rows of another shape.

    Example:
        >>> as_batch([[1, 2], [3, 4]], 2, like=torch.zeros(1))
        tensor([[1., 2.],
                [3., 4.]])
    """
    batch = torch.as_tensor(x, device=like.device)
    if features is not None or batch.is_floating_point():
        batch = batch.to(like.dtype)
    shape = tuple(batch.shape)
    if features is not None and (batch.dim() != 2 or shape[1] != features):
        hint = "x[None] makes one datum a batch" if len(shape) == 1 else "x.flatten(1) makes rows"
        wanted = f"shape (batch, {features})"
        raise DataError(explain("x", wanted, f"shape {shape}", f"Check in_features; {hint}."))
    if not shape or shape[0] == 0:
        raise DataError(
            explain("x", "at least one datum", f"an empty batch {shape}", "Skip empty batches.")
        )
    return batch


def data_plate(batch_size: int, num_data: int | None = None, like: Tensor | None = None) -> Any:
    """The plate "data" at dim -1 over a batch that stands for ``num_data`` data.

    Its N/B scale is 1 where ``num_data`` is None. No index is drawn at random.

    Args:
        batch_size: B, rows in the batch.
        num_data: N, rows in the full data.
        like: a tensor on the device that the indices should be on.

    Raises:
        PlateError: ``num_data`` is below ``batch_size``.

    Example:
        >>> with data_plate(2, num_data=10):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> z.shape
        torch.Size([2])
    """
    if num_data is None or num_data == batch_size:
        return pyro.plate("data", batch_size, dim=-1)
    if num_data < batch_size:
        raise PlateError(
            explain(
                "num_data",
                f"at least the batch size {batch_size}",
                str(num_data),
                "Pass the number of training data, or leave num_data out.",
            )
        )
    indices = torch.arange(batch_size, device=None if like is None else like.device)
    return pyro.plate("data", num_data, subsample=indices, dim=-1)


def named_sizes(latent_features: int | Sequence[int] | Mapping[str, int]) -> dict[str, int]:
    """Latent sites and their sizes, by the naming rule that models and guides share.

    Example:
        >>> named_sizes(16), named_sizes((8, 4)), named_sizes({"a": 2})
        ({'z': 16}, {'z1': 8, 'z2': 4}, {'a': 2})
    """
    if isinstance(latent_features, Mapping):
        sizes = dict(latent_features)
    elif isinstance(latent_features, Sequence) and len(latent_features) != 1:
        sizes = {f"z{level}": size for level, size in enumerate(latent_features, start=1)}
    else:
        alone = latent_features if isinstance(latent_features, int) else latent_features[0]
        sizes = {"z": alone}
    if not sizes:
        hint = "Pass a size, sizes from the data upwards, or sizes by site."
        raise ProgramError(explain("latent_features", "at least one size", "none", hint))
    return {name: check_size(f"latent_features of '{name}'", n) for name, n in sizes.items()}


def hidden_by_layer(hidden: Hidden, num_layers: int) -> list[tuple[int, ...]]:
    """Hidden sizes of each stochastic layer's network: the same for all, or one tuple each.

    Example:
        >>> hidden_by_layer((200, 200), 2)
        [(200, 200), (200, 200)]
        >>> hidden_by_layer([(200, 200), (100, 100)], 2)
        [(200, 200), (100, 100)]
    """
    per_layer = [tuple(sizes) for sizes in hidden if isinstance(sizes, Sequence)]
    if not per_layer:
        return [tuple(size for size in hidden if not isinstance(size, Sequence))] * num_layers
    if len(per_layer) != num_layers or len(hidden) != num_layers:
        raise ProgramError(
            explain(
                "hidden",
                f"sizes, or one tuple of sizes for each of {num_layers} stochastic layers",
                repr(hidden),
                "Pass hidden=(200, 200), or [(200, 200), (100, 100)] for two layers.",
            )
        )
    return per_layer


def check_size(name: str, size: Any) -> int:
    """``size`` if it is an integer >= 1.

    Raises:
        ProgramError: it is not.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ProgramError(explain(name, "an integer >= 1", repr(size), f"Check {name}."))
    return size


def check_choice(name: str, choice: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise :class:`ProgramError` unless ``choice`` is one of ``known``."""
    if choice not in known:
        first = next(iter(known))
        raise ProgramError(
            explain(name, f"one of {list(known)}", repr(choice), f"Pass {name}={first!r}.")
        )


def _glorot(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
