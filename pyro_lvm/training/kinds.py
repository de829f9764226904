"""What a recording belongs to: the kind of a call, and what programs and torch are set to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = ["KNOWN", "Call", "state_of", "surroundings"]

KNOWN = (Tensor, bool, int, float, str, type(None), torch.dtype, torch.device)
"""What may be among the arguments: tensors, and what stays the same for a kind."""

_DEVICES = ("cpu", "cuda")


class Call:
    """Arguments of the programs, and the leaves of whatever holds them.

    Example:
        >>> Call((torch.zeros(3), None), {}).kind
        ['2', (torch.Size([3]), torch.float32, device(type='cpu')), None]
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self.leaves: Sequence[Any] = args
        self.structure: Any = len(args)
        if kwargs or not all(isinstance(arg, KNOWN) for arg in args):
            self.leaves, self.structure = tree_flatten((args, kwargs))

    @property
    def tensors(self) -> list[Tensor]:
        """Those among the leaves, entry after entry in memory: compiled code relies on it."""
        return [leaf.contiguous() for leaf in self.leaves if isinstance(leaf, Tensor)]

    def refilled(self, tensors: Iterator[Tensor]) -> tuple[Any, Any]:
        """``args`` and ``kwargs`` with the next of ``tensors`` in the place of their own."""
        leaves = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        if isinstance(self.structure, int):
            return tuple(leaves), {}
        args, kwargs = tree_unflatten(leaves, self.structure)
        return args, kwargs

    @property
    def kind(self) -> list[Hashable]:
        """What is alike for all batches that one graph takes."""
        return [str(self.structure), *map(_kind, self.leaves)]


def state_of(modules: Sequence[nn.Module]) -> Iterator[Hashable]:
    """Which modules these are, what they hold, and their modes: compared at every step."""
    for module in modules:
        yield module.training
        yield from module._modules.values()
        yield from map(id, module._buffers.values())
        for parameter in module._parameters.values():
            yield id(parameter), parameter is not None and parameter.requires_grad


def surroundings() -> list[Hashable]:
    """What programs compute in, whatever they are called with."""
    autocast = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES]
    return [*autocast, torch.get_default_dtype()]


def _kind(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
