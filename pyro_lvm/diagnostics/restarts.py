"""Several fits of one problem, whose draws stand beside each other as chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Plated
from pyro_lvm.errors import DataError, PyroLVMError, explain
from pyro_lvm.inference_data import DATA_GROUPS
from pyro_lvm.objective import Objective

__all__ = ["Restart", "joined", "restarts"]

Program = Callable[..., Any]
PlatedGroups = Mapping[str, Mapping[str, Plated]]


class Restart(NamedTuple):
    """One fit: its programs, and what they were trained by."""

    model: Program
    guide: Program
    objective: Objective | None


def restarts(
    model: Program | Sequence[Program],
    guide: Program | Sequence[Program],
    objective: Objective | Sequence[Objective] | None,
) -> list[Restart]:
    """One for each guide of a list; what is no list is that of all.

    Raises:
        PyroLVMError: an empty list, or lists of different lengths.

    Example:
        >>> [fit.guide for fit in restarts("model", ["first", "second"], None)]
        ['first', 'second']
    """
    given = {"guide": guide, "model": model, "objective": objective}
    lists = {name: part for name, part in given.items() if isinstance(part, (list, tuple))}
    count = len(next(iter(lists.values()))) if lists else 1
    for name, part in lists.items():
        if len(part) != count or not part:
            expected = f"a list of {max(1, count)}, as of the others, or no list"
            hint = "Pass one model, guide and objective for each restart."
            raise PyroLVMError(explain(name, expected, f"a list of {len(part)}", hint))
    columns = [lists.get(name, [part] * count) for name, part in given.items()]
    return [Restart(model, guide, by) for guide, model, by in zip(*columns, strict=True)]


def joined(parts: Sequence[PlatedGroups]) -> dict[str, dict[str, Plated]]:
    """The draws of all parts one after the other, by group and name; data, the same in each, once.

    Raises:
        DataError: parts of different data.
    """
    first = parts[0]
    for group in DATA_GROUPS:
        for name, data in first[group].items():
            for other in parts[1:]:
                _check_same(name, data.values, other[group][name].values)
    return {
        group: {
            name: Plated(draws.plates, torch.cat([part[group][name].values for part in parts]))
            if group not in DATA_GROUPS
            else draws
            for name, draws in variables.items()
        }
        for group, variables in first.items()
    }


def _check_same(name: str, first: Tensor, other: Tensor) -> None:
    if first.shape != other.shape or not torch.equal(first.nan_to_num(), other.nan_to_num()):
        raise DataError(
            explain(
                f"data '{name}'",
                "the same data in every restart, as their draws are put side by side",
                "others in one of them",
                "Pass subsample= rows to the programs in place of a random minibatch.",
            )
        )
