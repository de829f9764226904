"""One run of a model and guide that finds their parameters, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import pyro
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_lvm.errors import DataError, ParameterError, PlateError, explain
from pyro_lvm.parameters import check_fresh, check_own
from pyro_lvm.tracing import Recorder, record
from pyro_lvm.training.loader import Batch

__all__ = ["Program", "drop_strays", "parameter_names"]

Program = Callable[..., Any]

_ANY = 1_000_000  # dims that plates may take: there are no particles to the left of them


def parameter_names(
    model: Program, guide: Program, batch: Batch, refuse_subsampling: bool
) -> list[str]:
    """Run the guide, and the model on its draws; the names of all parameters they used."""
    watch = _ParameterWatch()
    checks = _NoRandomSubsampling() if refuse_subsampling else Messenger()
    try:
        with watch, checks, _lenient():
            q = record(guide, batch.args, batch.kwargs, Recorder(None, _ANY))
            given = {name: site.value for name, site in q.sites.items() if not site.is_observed}
            record(model, batch.args, batch.kwargs, Recorder(None, _ANY, given, q.plates))
    except RuntimeError as error:
        if "dtype" in str(error):
            raise _wrong_dtype(batch, str(error)) from error
        raise
    if refuse_subsampling and isinstance(guide, AutoGuide):
        _check_amortized(guide, batch.size)
    return watch.names


def drop_strays(module: nn.Module) -> None:
    """Refuse ``pyro.param`` inside a module, but for the model that an AutoGuide looked at.

    Raises:
        ParameterError: naming the parameter.
    """
    own = {id(p) for p in module.parameters()}
    for part in module.modules():
        if not isinstance(part, PyroModule):
            continue
        state = part._pyro_context.param_state
        strays = [name for name, p in state["params"].items() if id(p) not in own]
        if strays and not isinstance(module, AutoGuide):
            raise _store_inside_module(strays[0])
        for name in strays:
            del state["params"][name], state["constraints"][name]


def _lenient() -> AbstractContextManager[None]:
    """Values out of range and stray parameters get errors that say more, later."""
    return cast(
        AbstractContextManager[None],
        pyro.settings.context(
            validate_distributions_pyro=False,
            validate_distributions_torch=False,
            validate_poutine=False,
        ),
    )


class _ParameterWatch(Messenger):
    """Collects the names of parameters, and refuses stale ones of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        if len(msg["args"]) > 1:
            check_fresh(msg["name"], msg["args"][1])
            check_own(msg["name"], msg["args"][1])
        self.names.append(msg["name"])


class _NoRandomSubsampling(Messenger):
    """Refuses plates that choose a minibatch at random."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if type(fn).__name__ != "_Subsample" or msg["value"] is not None:
            return
        if fn.subsample_size is not None and fn.subsample_size < fn.size:
            raise PlateError(
                explain(
                    f"plate '{msg['name']}'",
                    "the loader's batch, when several processes train together",
                    f"a random subsample of {fn.subsample_size} from {fn.size}",
                    "Pass the rows as data and open the plate with size=N, subsample=<tensor of "
                    "the batch's length>.",
                )
            )


def _check_amortized(guide: AutoGuide, share: int) -> None:
    """Parameters of a row would be those of other rows in other processes."""
    for name, site in guide.prototype_trace.iter_stochastic_nodes():  # type: ignore[union-attr]
        for frame in site["cond_indep_stack"]:
            if frame.size == frame.full_size == share:
                raise PlateError(
                    explain(
                        f"site '{name}', plate '{frame.name}'",
                        "a guide that computes the posterior of a row, when several processes "
                        "train together",
                        f"an {type(guide).__name__} with parameters for each of {share} rows",
                        "Use an amortised guide, or train in one process.",
                    )
                )


def _store_inside_module(name: str) -> ParameterError:
    return ParameterError(
        explain(
            f"parameter '{name}'",
            "an attribute of the PyroModule that uses it",
            "one made by pyro.param or pyro.module inside a PyroModule",
            "Write self.x = PyroParam(...), or make the program a plain function.",
        )
    )


def _wrong_dtype(batch: Batch, message: str) -> DataError:
    found = {str(v.dtype) for v in [*batch.args, *batch.kwargs.values()] if hasattr(v, "dtype")}
    return DataError(
        explain(
            "data",
            "the dtype of the parameters",
            f"{', '.join(sorted(found))} ({message})",
            "Convert the data, for instance data.float(), or the programs with .double().",
        )
    )
