"""A second device for machines that have none: CPU memory that no CPU tensor may meet.

As on CUDA, an operation on tensors of both devices raises, except copies, scalar tensors in
elementwise operations and indices; ``numpy()`` and the CPU's random generators are refused. The
numbers are the CPU's own, random ones too: from the same seed they are what the CPU gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any

import torch
from lightning_fabric.accelerators import ACCELERATOR_REGISTRY, CPUAccelerator
from lightning_fabric.strategies import STRATEGY_REGISTRY, SingleDeviceStrategy
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch

NAME = "second"

_CPU = torch.device("cpu")
_aten = torch.ops.aten
_COPY = _aten.copy_.default
_TAKE_INDICES = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_TAKE_SCALARS = {_aten.fill_.Tensor, _aten.masked_fill.Tensor, _aten.masked_fill_.Tensor}
_SIZED = [_aten.arange.default, _aten.arange.start, _aten.arange.start_step, _aten.linspace.default]
_SIZED += [_aten.eye.default, _aten.eye.m, _aten.logspace.default]
"""Operations that torch makes of an empty tensor, which it gives another shape."""

_FALLBACK = torch.library.Library("_", "IMPL")
_OPERATIONS = torch.library.Library("aten", "IMPL")


def can_register() -> bool:
    """Whether this torch lets Python make a device."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def register() -> None:
    """Make the device known to torch, for good. It must come before any backward pass."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    _FALLBACK.fallback(_computed, "PrivateUse1")
    _OPERATIONS.impl("_copy_from", _copied, "PrivateUse1")
    _OPERATIONS.impl("_thnn_fused_gru_cell", _gru_cell, "AutogradPrivateUse1")
    for operation in _SIZED:
        _OPERATIONS.impl(operation, partial(_computed, operation), "PrivateUse1")
    ACCELERATOR_REGISTRY.register(NAME, _Accelerator)
    STRATEGY_REGISTRY.register(NAME, SingleDeviceStrategy, device=NAME)
    torch.utils.swap_tensors = _moved


class _Accelerator(CPUAccelerator):
    """What Lightning asks of it; ``strategy`` tells the device."""

    def setup_device(self, device: torch.device) -> None:
        """There is nothing to do."""


class _Module:
    """What torch asks of ``torch.second``."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are the CPU's."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_swap_tensors = torch.utils.swap_tensors


def _moved(kept: Tensor, moved: Tensor) -> None:
    """What ``Module.to`` does to a parameter, which only the first move may swap for another."""
    if isinstance(kept, _OnDevice) and isinstance(moved, _OnDevice) and kept.dtype == moved.dtype:
        kept.data = moved
    else:
        _swap_tensors(kept, moved)


class _OnDevice(Tensor):
    """A tensor of the device; ``memory`` is a tensor of the CPU with its numbers."""

    memory: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, memory: Tensor) -> _OnDevice:
        layout = memory.shape, memory.stride(), memory.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, *layout, dtype=memory.dtype, device=f"{NAME}:0")
        made.memory = memory
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, *args, **(kwargs or {}))

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """With the next, it makes ``Module.to`` keep the parameters it moves, as on CUDA."""
        return ["memory"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: None, size: Any, stride: Any) -> _OnDevice:
        return _OnDevice(inner["memory"])

    def __repr__(self) -> str:
        return f"{self.memory!r} on {NAME}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved, it is loaded to the CPU."""
        return self.memory.__reduce_ex__(protocol)

    def __format__(self, form: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), form)

    @property
    def data(self) -> Tensor:
        return _OnDevice(self.memory)  # unlike detach(), with versions of its own

    @data.setter
    def data(self, value: Tensor) -> None:
        """Numbers of the same shape in the place of its own."""
        if not isinstance(value, _OnDevice) or value.shape != self.shape:
            raise NotImplementedError(f"another device or shape for a tensor on {NAME}")
        self.memory = value.memory

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME} device type tensor to numpy")
        return self.memory.numpy(force=True)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> Any:
        return self.memory.untyped_storage()


_OnDevice.__name__ = "Tensor"  # as messages name it on any device


def _computed(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation that involves the device, on the numbers of its tensors."""
    if func.namespace != "aten":  # written in Python: its own operations come here
        return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
    _check(func, args, kwargs)
    result = func(*_inside(args), **{name: _inside(value) for name, value in kwargs.items()})
    if kwargs.get("device") == _CPU:
        return result
    if _gives_back(func):
        if torch.Tag.inplace_view in func.tags:
            _reshape(func, args, kwargs)
        return kwargs.get("out", args[0])
    return _outside(result)


def _reshape(func: Any, args: Any, kwargs: Any) -> None:
    """Repeat an operation that gave a tensor another shape, on the shapes alone."""
    before = torch._C._meta_in_tls_dispatch_include()
    torch._C._set_meta_in_tls_dispatch_include(True)
    try:
        with no_dispatch():
            func(*args, **kwargs)
    finally:
        torch._C._set_meta_in_tls_dispatch_include(before)


@cache
def _gives_back(func: Any) -> bool:
    """Whether it returns the tensor that it changes."""
    returns = func._schema.returns
    return len(returns) == 1 and bool(returns[0].alias_info and returns[0].alias_info.is_write)


def _gru_cell(
    gates_x: Tensor, gates_h: Tensor, h: Tensor, b_x: Tensor | None, b_h: Tensor | None
) -> tuple[Tensor, Tensor]:
    """torch asks every device but the CPU for a kernel of this name."""
    if b_x is not None and b_h is not None:
        gates_x, gates_h = gates_x + b_x, gates_h + b_h
    (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (
        gates_x.chunk(3, -1),
        gates_h.chunk(3, -1),
    )
    new = (new_x + (reset_x + reset_h).sigmoid() * new_h).tanh()
    return new + (update_x + update_h).sigmoid() * (h - new), h.new_empty(0)


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    return _inside(target).copy_(_inside(source))


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """Refuse what CUDA refuses."""
    if func is _COPY:
        return
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    read = (args[0], *args[2:]) if func in _TAKE_INDICES else args
    strangers = [leaf for leaf in _leaves((*read, *kwargs.values())) if _is_on_cpu(leaf)]
    if strangers and _takes_scalars(func):
        written = args[0] if func._schema.is_mutable else None
        strangers = [each for each in strangers if each.dim() > 0 or each is written]
    if strangers:
        raise RuntimeError(f"Expected all tensors on one device, found {NAME} and cpu: {func}")


@cache
def _takes_scalars(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags or func in _TAKE_SCALARS


def _is_on_cpu(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not isinstance(leaf, _OnDevice)


# In place of torch's trees, which take most of the time of an operation.


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from _leaves(value) if isinstance(value, list | tuple) else (value,)


def _inside(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_inside(each) for each in value]
    if isinstance(value, torch.device):
        return _CPU
    return value.memory if isinstance(value, _OnDevice) else value


def _outside(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_outside(each) for each in value)
    return _OnDevice(value) if _is_on_cpu(value) else value
