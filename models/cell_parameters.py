"""Parameters with a value for each cell of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import check_choice, check_size

__all__ = ["CellParameters"]

_LEAST_NOISE = 1e-3  # dF/F, below that of any recording: a constant trace has a finite density
_CONSTRAINTS = {
    "baseline": constraints.real,
    "noise_scale": constraints.greater_than(_LEAST_NOISE),
    "exponent": constraints.greater_than(1.0),
}


class CellParameters(PyroModule):
    """Base: named parameters ``(num_cells, *shape)``, and the rows that a batch of traces needs.

    They are positive by an exponential; ``noise_scale`` is above 0.001, ``exponent`` above 1 and
    ``baseline`` free. ``model.decay`` is the value, and what is assigned to it is the new one;
    ``model.decay_unconstrained`` is what is learnt.

    Args:
        num_cells: rows; 1 is shared by all traces.
    """

    def __init__(self, num_cells: int) -> None:
        super().__init__(name=type(self).__name__)
        self.num_cells = check_size("num_cells", num_cells)

    def hold(self, *names: str) -> None:
        """Leave these parameters as they are in training.

        Amplitude and firing rate explain each other, as do baseline and firing rate: hold one
        where it is known.

        Raises:
            ProgramError: a name of no parameter.
        """
        for name in names:
            check_choice("name", name, self.values())
            self.get_parameter(f"{name}_unconstrained").requires_grad_(False)

    def values(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        names = [name.removesuffix("_unconstrained") for name, _ in self.named_parameters()]
        return {name: getattr(self, name) for name in names}

    def _learn(self, values: Mapping[str, float], *shape: int) -> None:
        """Make parameters that start from these values."""
        for name, value in values.items():
            start = torch.full((self.num_cells, *shape), value)
            setattr(self, name, PyroParam(start, _CONSTRAINTS.get(name, constraints.positive)))

    def _start(self, name: str, found: Tensor) -> None:
        """Set a parameter to a value of each trace, or their mean; NaN leaves it as it was."""
        start: Tensor = getattr(self, name)
        values = found if len(found) == len(start) else found.nanmean(0, keepdim=True)
        setattr(self, name, torch.where(values.isnan(), start, values).detach())

    def _row(self, name: str, cell: Tensor | None) -> Tensor:  # (rows, *shape, 1)
        """A parameter's values for a batch, or one for all of it, to broadcast over frames."""
        values: Tensor = getattr(self, name)
        return (values if cell is None else values[cell]).unsqueeze(-1)

    def cells(self, cell: Any, rows: int) -> Tensor | None:
        """The cell of each trace; None where parameters are shared or in the traces' order.

        Raises:
            DataError: there is no telling which parameters are whose.
        """
        if cell is None and self.num_cells in (1, rows):
            return None
        if cell is None:
            expected = f"the cell of each trace, 0 to {self.num_cells - 1}"
            hint = "Pass cell=, an index a trace, or one trace of each cell in order."
            raise DataError(explain("cell", expected, f"none for {rows} traces", hint))
        index = torch.as_tensor(cell, dtype=torch.long, device=next(self.parameters()).device)
        if index.shape != (rows,):
            found, hint = f"shape {tuple(index.shape)}", "Pass one index a trace."
            raise DataError(explain("cell", f"shape ({rows},)", found, hint))
        return index
