"""A model and a guide as something to train: their parameters, state and devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_lvm.errors import ParameterError, explain
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.training.discovery import Program, drop_strays, parameter_names
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.rng import seeded

__all__ = ["Program", "Programs"]


class Programs:
    """A model and its guide: modules, bound methods of modules, or plain functions.

    Modules keep their parameters; plain functions keep theirs in Pyro's parameter store,
    where one run of both programs, :meth:`discover`, finds them.
    """

    def __init__(self, model: Program, guide: Program) -> None:
        self.model = model
        self.guide = guide
        self.modules = {
            role: module
            for role, program in (("model", model), ("guide", guide))
            if (module := _module_of(program)) is not None
        }
        self.stored: dict[str, Tensor] = {}
        """Unconstrained parameters in Pyro's store, by name."""
        for module in self.modules.values():
            allow_local_parameters(module)

    def to(self, fabric: Fabric) -> None:
        """Where and in what precision ``fabric`` computes."""
        for module in self.modules.values():
            fabric.strategy.precision.convert_module(module.to(fabric.device))

    def discover(self, batch: Batch, *, seed: int = 0, refuse_subsampling: bool = False) -> None:
        """Run both programs once on ``batch``, so that all their parameters exist.

        Leaves random state and module buffers as they were; ``seed`` decides the values of
        parameters that are drawn at the first call.

        Raises:
            ParameterError: no parameters, or stale ones in Pyro's store.
            PlateError: a plate subsamples at random and ``refuse_subsampling`` is set.
            DataError: the data have another dtype than the parameters.
        """
        with seeded(seed, "discover"), torch.no_grad(), self.evaluating():
            names = parameter_names(self.model, self.guide, batch, refuse_subsampling)
        for module in self.modules.values():
            drop_strays(module)
        own = {id(p) for module in self.modules.values() for p in module.parameters()}
        store = dict(pyro.get_param_store().named_parameters())
        self.stored = {n: store[n] for n in names if n in store and id(store[n]) not in own}
        if not self.parameters():
            raise _nothing_to_train()

    def parameters(self) -> list[Tensor]:
        """Every parameter that asks for a gradient, once, in a fixed order."""
        owned = [p for module in self.modules.values() for p in module.parameters()]
        unique = {id(p): p for p in [*owned, *self.stored.values()] if p.requires_grad}
        return list(unique.values())

    def has_batch_norm(self) -> bool:
        kind = nn.modules.batchnorm._BatchNorm
        return any(isinstance(m, kind) for top in self.modules.values() for m in top.modules())

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside; each submodule's own mode again afterwards."""
        modes = {m: m.training for top in self.modules.values() for m in top.modules()}
        try:
            for module in self.modules.values():
                module.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def state_dict(self) -> dict[str, Any]:
        """Module states and stored parameters, as tensors that later steps leave alone."""
        state = {role: _copied(module.state_dict()) for role, module in self.modules.items()}
        return {"modules": state, "stored": _copied(self.stored)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back :meth:`state_dict`.

        Raises:
            ParameterError: the parameters of the programs are others, or of other shapes.
        """
        _check_names("program", set(state["modules"]), set(self.modules))
        for role, module in self.modules.items():
            _load_module(role, module, state["modules"][role])
        _check_names("stored parameter", set(state["stored"]), set(self.stored))
        for name, parameter in self.stored.items():
            _check_shape(name, state["stored"][name].shape, parameter.shape)
            with torch.no_grad():
                parameter.copy_(state["stored"][name])


def _module_of(program: Program) -> nn.Module | None:
    """The module itself, or the one a program is a method of."""
    if isinstance(program, nn.Module):
        return program
    owner = getattr(program, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _load_module(role: str, module: nn.Module, state: Mapping[str, Any]) -> None:
    own = module.state_dict()
    _check_names(f"parameter of the {role}", set(state), set(own))
    for name, value in state.items():
        if isinstance(value, Tensor) and isinstance(own[name], Tensor):
            _check_shape(f"{role}.{name}", value.shape, own[name].shape)
    module.load_state_dict(state)


def _check_names(what: str, saved: set[str], own: set[str]) -> None:
    if saved != own:
        raise ParameterError(
            explain(
                what,
                f"the saved names; missing here: {sorted(saved - own)[:5]}",
                f"names that were not saved: {sorted(own - saved)[:5]}",
                "Build the same programs; a guide that makes its parameters at the first call "
                "(an AutoGuide) must be called once before, on data or through args=.",
            )
        )


def _check_shape(name: str, saved: torch.Size, own: torch.Size) -> None:
    if saved != own:
        raise ParameterError(
            explain(
                f"parameter '{name}'",
                f"the saved shape {tuple(saved)}",
                f"shape {tuple(own)}",
                "Build the programs with the sizes they were trained with.",
            )
        )


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v.detach().clone() if isinstance(v, Tensor) else v for n, v in state.items()}


def _nothing_to_train() -> ParameterError:
    return ParameterError(
        explain(
            "model and guide",
            "at least one trainable parameter",
            "none",
            "Pass modules whose parameters have requires_grad=True, or call pyro.param or "
            "pyro.module in a plain function.",
        )
    )
